use std::path::Path;

use super::{CatalogError, check, current};
use crate::db::testing::on_both;
use crate::testing::{Fixture, MANIFESTS};

fn findings(manifest: &str) -> String {
    let bundle = shared::catalog::Bundle {
        serial: 1,
        min_serial: 0,
        not_after: shared::time::Timestamp::from_micros(i64::MAX),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: [("thing".to_owned(), manifest.to_owned())].into(),
    };
    check::report(&check::bundle(&bundle))
}

/// A manifest that passes, with one line changed.
fn changed(from: &str, to: &str) -> String {
    let good = r#"
key = "thing"
name = "Thing"
category = "ai"
summary = "A thing."
platforms = ["macos", "linux"]
[[slot]]
key = "TOKEN"
name = "Token"
tag = "client-supplied"
hint = "op://{vault}/Thing/token"
pattern = "^t-[a-z]+$"
[[step]]
id = "install"
kind = "auto"
title = "Install it"
as = "root"
timeout = "5m"
verify = 'true'
run = 'npm install -g thing@1.0.0'
secrets = [{ slot = "TOKEN", as = "env" }]
[[wrapper]]
name = "thing"
command = ["thing"]
slots = { TOKEN = "TOKEN" }
"#;
    assert_eq!(findings(good), "");
    assert!(good.contains(from), "{from}");
    findings(&good.replace(from, to))
}

#[test]
fn every_rule_of_the_check_names_place_and_remedy() {
    let cases = [
        (
            "summary = \"A thing.\"",
            "summery = \"A thing.\"",
            "components/thing.toml:5: unknown field `summery`",
        ),
        ("key = \"thing\"", "key = \"other\"", "the file is named after its key"),
        ("kind = \"auto\"", "kind = \"dance\"", "unknown variant `dance`"),
        ("category = \"ai\"", "category = \"magic\"", "use one of system"),
        ("platforms = [\"macos\", \"linux\"]", "platforms = []", "name macos, linux or both"),
        ("platforms =", "depends_on = [\"nothing\"]\nplatforms =", "there is no component \"nothing\""),
        ("platforms =", "depends_on = [\"thing\"]\nplatforms =", "a cycle"),
        ("hint = \"op://{vault}/Thing/token\"", "", "needs a hint"),
        ("op://{vault}/Thing", "op://Example/Thing", "must start with op://{vault}/"),
        ("tag = \"client-supplied\"", "tag = \"our-managed\"", "remove it"),
        ("pattern = \"^t-[a-z]+$\"", "pattern = \"t-[a-z]+\"", "must be anchored"),
        ("pattern = \"^t-[a-z]+$\"", "pattern = \"^t-[a-z+$\"", "pattern can't be read"),
        ("timeout = \"5m\"", "timeout = \"5 minutes\"", "must be like 30s, 5m or 2h"),
        ("verify = 'true'\n", "", "the exit code of run proves nothing"),
        ("as = \"root\"\n", "", "needs as: user, root or board"),
        ("thing@1.0.0", "thing", "without a version: pin it"),
        ("run = 'npm", "run = 'sudo npm", "calls sudo"),
        ("run = 'npm install -g thing@1.0.0'", "run = 'curl -s x | sh'", "pipes a download into a shell"),
        ("verify = 'true'", "verify = 'test -x /usr/local/bin/thing'", "users can write to"),
        ("verify = 'true'", "verify = 'test \"'", "is not valid for /bin/sh"),
        ("verify = 'true'", "verify = 'echo {{X}}'", "nothing is ever put into a script's text"),
        ("slot = \"TOKEN\", as", "slot = \"OTHER\", as", "names the slot \"OTHER\""),
        ("slots = { TOKEN = \"TOKEN\" }", "slots = { TOKEN = \"OTHER\" }", "names the slot \"OTHER\""),
        ("command = [\"thing\"]", "command = []", "has no command"),
    ];
    for (from, to, expected) in cases {
        let said = changed(from, to);
        assert!(said.contains(expected), "{to:?} should say {expected:?}, says:\n{said}");
    }
}

#[test]
fn the_catalog_of_this_repository_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
    let (texts, _, findings) = check::folder(&folder).unwrap();
    assert!(!texts.is_empty());
    assert_eq!(check::report(&findings), "");
}

#[tokio::test]
async fn a_newer_bundle_replaces_an_older_one_and_a_tag_never_changes() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        for serial in [0, 1] {
            let refused = fixture.import(serial, MANIFESTS).await;
            assert!(matches!(refused, Err(CatalogError::NotNewer { current: 1, .. })), "{serial}");
        }
        let before = fixture.our_slot().await;
        let text = MANIFESTS[1].1.replace("Our key", "Our new name");
        fixture.import(2, &[MANIFESTS[0], ("tool", &text)]).await.unwrap();
        let after = fixture.our_slot().await;
        assert_eq!((before.id, after.name.as_str()), (after.id, "Our new name"));
        let retagged = text
            .replace("tag = \"our-managed\"", "tag = \"client-supplied\"\nhint = \"op://{vault}/Tool/key\"");
        let refused = fixture.import(3, &[MANIFESTS[0], ("tool", &retagged)]).await;
        assert!(matches!(refused, Err(CatalogError::TagChanged { .. })), "{refused:?}");
        let mut tx = fixture.app.db.read().await.unwrap();
        assert_eq!(
            current(&mut tx).await.unwrap().unwrap().serial,
            2,
            "nothing of the refused bundle stayed"
        );
    })
    .await;
}
