use super::*;

fn manifest() -> Manifest {
    toml_manifest("key = \"x\"\nname = \"x\"\ncategory = \"ai\"\nsummary = \"x\"\nplatforms = [\"linux\"]\n")
}

/// The agent reads manifests only out of bundles, so this does, too.
fn toml_manifest(text: &str) -> Manifest {
    let bundle = shared::catalog::Bundle {
        serial: 1,
        min_serial: 0,
        not_after: Timestamp::from_micros(0),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: [("x".to_owned(), text.to_owned())].into(),
    };
    bundle.parse_manifests().unwrap().remove("x").unwrap()
}

fn seen(presence: Presence) -> Seen {
    Seen { probe: "p".to_owned(), presence, version: None, saw: "s".to_owned() }
}

#[test]
fn a_component_is_there_only_when_every_probe_says_so() {
    use Presence::{Absent, Outdated, Present, Unknown};
    let table: &[(&[Presence], Presence)] = &[
        (&[Present], Present),
        (&[Present, Present], Present),
        (&[Present, Absent], Absent),
        (&[Present, Outdated], Outdated),
        (&[Present, Unknown], Unknown),
        (&[Outdated, Unknown, Absent], Absent),
        (&[Outdated, Unknown], Unknown),
        (&[], Unknown),
    ];
    for (probes, expected) in table {
        let seen = probes.iter().copied().map(seen).collect();
        let report = component_report(&manifest(), seen, Timestamp::from_micros(1));
        assert_eq!(report.presence, *expected, "{probes:?}");
        assert!(!report.evidence.is_empty());
    }
}

#[test]
fn when_it_was_seen_makes_no_difference() {
    let at = |micros, presence| Inventory {
        components: vec![component_report(&manifest(), vec![seen(presence)], Timestamp::from_micros(micros))],
        slots: Vec::new(),
    };
    assert!(at(1, Presence::Present).says_the_same_as(&at(2, Presence::Present)));
    assert!(!at(1, Presence::Present).says_the_same_as(&at(1, Presence::Absent)));
}
