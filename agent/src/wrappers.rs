//! The launchers under `BOARD_WRAPPERS`: they start a program through the broker and hold no value.

use std::io;
use std::path::Path;

use shared::catalog::Wrapper;

use crate::config::Paths;
use crate::files;

/// Writes a component's wrappers; what is already so isn't touched.
pub fn write(paths: &Paths, program: &Path, component: &str, wrappers: &[Wrapper]) -> io::Result<()> {
    for wrapper in wrappers {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if wrapper.name.is_empty() || !wrapper.name.bytes().all(plain) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{:?} can't be the name of a wrapper", wrapper.name),
            ));
        }
        let path = paths.wrappers().join(&wrapper.name);
        let script = script(program, paths, component, wrapper);
        if files::read_if_there(&path)?.as_deref() != Some(script.as_bytes()) {
            files::write_atomic(&path, script.as_bytes(), 0o755)?;
        }
    }
    Ok(())
}

fn script(program: &Path, paths: &Paths, component: &str, wrapper: &Wrapper) -> String {
    let target = format!("{component}/{}", wrapper.name);
    let program = program.display().to_string();
    let data = paths.data().display().to_string();
    let mut words: Vec<String> =
        [&program, "exec", "--data", &data, "--for", &target, "--"].map(quote).to_vec();
    words.extend(wrapper.command.iter().map(|word| quote(word)));
    format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))
}

/// One word for a POSIX shell, whatever is in it.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    fn wrapper(name: &str, command: &[&str]) -> Wrapper {
        Wrapper {
            name: name.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            slots: BTreeMap::new(),
            params: BTreeMap::new(),
        }
    }

    #[test]
    fn every_word_arrives_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("it's a folder"));
        paths.create().unwrap();
        let recorder = folder.path().join("the recorder");
        std::fs::write(&recorder, "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done\n").unwrap();
        std::fs::set_permissions(&recorder, std::fs::Permissions::from_mode(0o755)).unwrap();

        let words = ["a b", "it's", "\"$HOME\"", "`id`", "~/x", "*", ""];
        write(&paths, &recorder, "slack", &[wrapper("slack", &words)]).unwrap();
        let script = paths.wrappers().join("slack");
        let output = Command::new(&script).args(["one more", "$1"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let data = paths.data().display().to_string();
        let mut expected = vec!["exec", "--data", &data, "--for", "slack/slack", "--"];
        expected.extend(words);
        expected.extend(["one more", "$1"]);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
        assert_eq!(std::fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_name_can_not_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        for name in ["../x", "a/b", "", "a b"] {
            assert!(
                write(&paths, Path::new("/x"), "slack", &[wrapper(name, &["true"])]).is_err(),
                "{name:?}"
            );
        }
    }
}
