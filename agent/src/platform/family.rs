//! Which processes belong together, from Apple's command line tools. Compiled for tests everywhere.

use std::collections::BTreeSet;

use super::tool::Said;

/// One line of `ps -axo pid=,ppid=,pgid=`: numbers only, nothing that a user of the machine can write into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
}

pub fn parse_ps(text: &str) -> Vec<Process> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let (pid, parent, group) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(Process { pid, parent, group })
        })
        .collect()
}

/// What `lsof -t` prints: a process id a line. It fails when it finds nothing, too; only then it has nothing to complain
/// about.
pub fn parse_lsof(said: &Said) -> Result<Vec<i32>, String> {
    let pids: Vec<i32> = said.stdout.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let complaint = said.stderr.trim();
    if said.well || !pids.is_empty() || complaint.is_empty() { Ok(pids) } else { Err(complaint.to_owned()) }
}

/// The marked processes, everything below them, and whatever shares a group with any of those: a program that closes
/// what it inherited is still found by its parent or its group.
pub fn family(marked: &[i32], processes: &[Process]) -> Vec<i32> {
    let mut members: BTreeSet<i32> = marked.iter().copied().filter(|pid| *pid > 1).collect();
    loop {
        let groups: BTreeSet<i32> = processes
            .iter()
            .filter(|process| members.contains(&process.pid) && process.group > 1)
            .map(|process| process.group)
            .collect();
        let before = members.len();
        members.extend(
            processes
                .iter()
                .filter(|p| p.pid > 1 && (members.contains(&p.parent) || groups.contains(&p.group)))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if members.len() == before {
            return members.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PS: &str = "    1     0     1\n  300     1   300\n  410   300   410\n  411   410   410\n  \
        420   411   420\n  430     1   420\n  500     1   500\nrubbish\n  510 x 1\n";

    #[test]
    fn children_and_group_members_belong_to_it_and_strangers_do_not() {
        let processes = parse_ps(PS);
        assert_eq!(processes.len(), 7);
        // 300 is the agent, 410 the script, 420 left the group, 430 is an orphan in the group that 420 made.
        assert_eq!(family(&[410], &processes), [410, 411, 420, 430]);
        assert_eq!(family(&[430], &processes), [420, 430], "also when the script itself is gone");
        assert_eq!(family(&[], &processes), [] as [i32; 0]);
        assert_eq!(family(&[1, 0, -1], &processes), [] as [i32; 0], "never launchd");
        assert_eq!(family(&[999], &processes), [999], "it ended between the two looks");
    }

    #[test]
    fn only_process_ids_are_read_and_a_failed_look_is_no_empty_one() {
        let said = |well, stdout: &str, stderr: &str| {
            parse_lsof(&Said { well, stdout: stdout.to_owned(), stderr: stderr.to_owned() })
        };
        assert_eq!(said(true, "410\n 411 \nlsof: WARNING\n\n", ""), Ok(vec![410, 411]));
        assert_eq!(said(false, "", ""), Ok(vec![]), "nobody holds it open");
        let gone = "lsof: status error on /x: No such file or directory";
        assert_eq!(said(false, "", gone), Err(gone.to_owned()));
    }
}
