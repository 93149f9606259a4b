//! Which processes belong together, from Apple's command line tools. Compiled for tests everywhere.

use std::collections::BTreeSet;

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

/// What `lsof -t` prints: a process id a line.
pub fn parse_pids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
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
    fn only_process_ids_are_read() {
        assert_eq!(parse_pids("410\n 411 \nlsof: WARNING\n\n"), [410, 411]);
    }
}
