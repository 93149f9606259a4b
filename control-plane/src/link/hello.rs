//! A device's hello is believed about the device, within bounds: it is compared, kept and shown, and a rogue agent writes it.

use shared::protocol::link::Hello;

/// Characters of a version, of an id and of a key.
const LONGEST: usize = 255;
/// Secrets, attempts or plans.
const MOST: usize = 1000;
/// Bytes of SHA-256.
const HASH: usize = 32;

/// Why a hello is refused. The hardware UUID is the quarantine's to judge.
pub fn check(hello: &Hello) -> Result<(), &'static str> {
    let text = |text: &str| text.chars().count() <= LONGEST && !text.chars().any(char::is_control);
    let plans = hello.plans.as_ref().map_or(0, Vec::len);
    if hello.secrets.len() > MOST || hello.attempts.len() > MOST || plans > MOST {
        return Err("the hello names more than 1000 secrets, attempts or plans");
    }
    if !text(&hello.agent_version) || !text(&hello.boot_session) {
        return Err(
            "a version or a boot session in the hello is longer than 255 characters, or has control characters",
        );
    }
    if !hello.secrets.iter().all(|secret| text(&secret.component) && text(&secret.slot)) {
        return Err("a secret's name in the hello is longer than 255 characters, or has control characters");
    }
    if let Some(program) = &hello.program {
        let digests = program.successions.iter().chain(&program.failed);
        if program.successions.len() > MOST
            || program.failed.len() > MOST
            || !digests.clone().all(|one| text(one))
        {
            return Err(
                "the hello names more than 1000 statements or releases, or one of more than 255 characters",
            );
        }
    }
    if hello.audit_head.as_ref().is_some_and(|head| head.hash.len() != HASH) {
        return Err("the hash of the audit head in the hello is not 32 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::ids::AttemptId;
    use shared::protocol::link::{Head, HeldSecret, Program};
    use shared::random::SystemRandom;
    use shared::time::{Clock as _, SystemClock};

    use super::*;

    fn hello() -> Hello {
        Hello {
            agent_version: "0.1.0".into(),
            hardware_uuid: "A-UUID".into(),
            boot_session: "1".into(),
            clock: SystemClock.now(),
            audit_head: Some(Head { epoch: 1, seq: 7, hash: vec![0; 32] }),
            bundle_serial: 1,
            secrets: vec![secret("tool", "OUR_KEY")],
            attempts: Vec::new(),
            plans: Some(Vec::new()),
            program: None,
        }
    }

    fn secret(component: &str, slot: &str) -> HeldSecret {
        HeldSecret { component: component.into(), slot: slot.into(), version: 1 }
    }

    fn program(failed: Vec<String>) -> Option<Program> {
        Some(Program { arch: None, successions: Vec::new(), failed })
    }

    #[test]
    fn what_goes_beyond_the_bounds_is_refused_and_says_what() {
        check(&hello()).unwrap();
        let longest = "ä".repeat(255);
        let secrets = vec![secret(&longest, &longest); 1000];
        check(&Hello { agent_version: longest.clone(), secrets, audit_head: None, ..hello() }).unwrap();

        let long = "x".repeat(256);
        let head = |bytes| Some(Head { epoch: 1, seq: 7, hash: vec![0; bytes] });
        let attempts = vec![AttemptId::new(&SystemClock, &SystemRandom); 1001];
        for (what, refused) in [
            ("32 bytes", Hello { audit_head: head(0), ..hello() }),
            ("32 bytes", Hello { audit_head: head(31), ..hello() }),
            ("32 bytes", Hello { audit_head: head(700_000), ..hello() }),
            ("version", Hello { agent_version: long.clone(), ..hello() }),
            ("boot session", Hello { boot_session: "a\u{1b}[2J".into(), ..hello() }),
            ("secret's name", Hello { secrets: vec![secret(&long, "x")], ..hello() }),
            ("secret's name", Hello { secrets: vec![secret("x", "nul\0")], ..hello() }),
            ("1000", Hello { secrets: vec![secret("x", "x"); 1001], ..hello() }),
            ("1000", Hello { attempts, ..hello() }),
            ("statements", Hello { program: program(vec!["x".into(); 1001]), ..hello() }),
            ("statements", Hello { program: program(vec![long.clone()]), ..hello() }),
        ] {
            let said = check(&refused).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }
}
