//! What Apple's command line tools print, understood. Compiled for tests everywhere: there is no Mac to test it on.

use std::ffi::OsString;
use std::path::Path;

use super::Machine;

/// From `ioreg -rd1 -c IOPlatformExpertDevice` and `sw_vers`. Nothing without a hardware UUID.
pub fn machine(ioreg: &str, sw_vers: &str, host_name: String) -> Option<Machine> {
    Some(Machine {
        hardware_uuid: property(ioreg, "IOPlatformUUID")?.to_lowercase(),
        serial: property(ioreg, "IOPlatformSerialNumber").unwrap_or_default(),
        model: property(ioreg, "model").unwrap_or_default(),
        os_version: os_version(sw_vers),
        host_name,
    })
}

/// What `codesign` is to test: a Developer ID Application certificate that Apple issued to this team (the requirement language of
/// Apple's TN3127). Nothing for an id that could mean more than itself.
pub fn developer_id_of(team: &str) -> Option<String> {
    let plain =
        team.len() == 10 && team.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    plain.then(|| {
        format!(
            "=anchor apple generic and certificate 1[field.1.2.840.113635.100.6.2.6] exists and certificate \
             leaf[field.1.2.840.113635.100.6.1.13] exists and certificate leaf[subject.OU] = \"{team}\""
        )
    })
}

/// `"key" = "text"`, and `"key" = <"text">` for what the firmware keeps as data.
fn property(ioreg: &str, key: &str) -> Option<String> {
    let quoted = format!("\"{key}\"");
    let value = ioreg.lines().find_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        (name.trim_start_matches([' ', '|']) == quoted).then_some(value.trim())
    })?;
    let value = value.trim_start_matches('<').trim_end_matches('>');
    let text = value.strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn os_version(sw_vers: &str) -> String {
    let field = |name: &str| {
        sw_vers
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    format!("{} {}", field("ProductName"), field("ProductVersion")).trim().to_owned()
}

/// Starts a program where the user's windows and keychains are, still as root: it gives up its rights itself.
pub fn in_session(uid: u32, program: &Path) -> Vec<OsString> {
    ["/bin/launchctl".into(), "asuser".into(), uid.to_string().into(), program.into()].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_entered_with_launchctl_and_nothing_else_is_in_its_arguments() {
        let words = in_session(501, Path::new("/opt/board-agent/bin/board-agent"));
        assert_eq!(words, ["/bin/launchctl", "asuser", "501", "/opt/board-agent/bin/board-agent"]);
    }

    const IOREG: &str = r#"+-o Mac14,3  <class IOPlatformExpertDevice, id 0x100000220, registered, matched, active, busy 0, retain 40>
    {
      "IOPolledInterface" = "AppleARMWatchdogTimerHibernateHandler is not serializable"
      "AAPL,phandle" = <01000000>
      "IOPlatformSerialNumber" = "C02EXAMPLE1"
      "IOBusyInterest" = "IOCommand is not serializable"
      "target-type" = <"J473">
      "platform-name" = <7438313132000000000000000000000000000000000000000000000000000000>
      "model-number" = <4d4d465>
      "IOPlatformUUID" = "11AA22BB-0000-5000-8000-ABCDEF012345"
      "model" = <"Mac14,3">
    }
"#;

    #[test]
    fn a_mac_says_who_it_is() {
        let sw_vers = "ProductName:\t\tmacOS\nProductVersion:\t\t15.1\nBuildVersion:\t\t24B83\n";
        let found = machine(IOREG, sw_vers, "office-mini.local".to_owned()).unwrap();
        assert_eq!(
            found,
            Machine {
                hardware_uuid: "11aa22bb-0000-5000-8000-abcdef012345".to_owned(),
                serial: "C02EXAMPLE1".to_owned(),
                model: "Mac14,3".to_owned(),
                os_version: "macOS 15.1".to_owned(),
                host_name: "office-mini.local".to_owned(),
            }
        );
    }

    #[test]
    fn what_is_missing_is_empty_but_the_uuid_must_be_there() {
        let without = IOREG.replace("\"IOPlatformSerialNumber\"", "\"Other\"").replace("\"model\"", "\"x\"");
        let found = machine(&without, "", String::new()).unwrap();
        assert_eq!((found.serial.as_str(), found.model.as_str(), found.os_version.as_str()), ("", "", ""));
        for broken in [IOREG.replace("IOPlatformUUID", "X"), IOREG.replace("11AA", "\"\n"), String::new()] {
            assert!(machine(&broken, "", String::new()).is_none());
        }
    }

    #[test]
    fn a_team_is_named_in_the_requirement_and_nothing_else_can_be() {
        let wanted = developer_id_of("ABCDE12345").unwrap();
        assert!(wanted.starts_with("=anchor apple generic and "), "inline, from Apple's root");
        assert!(wanted.ends_with("certificate leaf[subject.OU] = \"ABCDE12345\""), "{wanted}");
        for bad in ["", "abcde12345", "ABCDE1234", "ABCDE12345X", "A\" or true", "ABCDE 2345"] {
            assert_eq!(developer_id_of(bad), None, "{bad:?}");
        }
    }
}
