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
[[slot]]
key = "OTHER_KEY"
name = "Other"
tag = "our-managed"
[[param]]
key = "STORE"
name = "Store"
pattern = "^[a-z0-9]+$"
[[step]]
id = "unpack"
kind = "auto"
title = "Unpack it"
as = "user"
verify = 'true'
run = 'tar xf "$BOARD_CACHE/thing.tgz"'
[[download]]
name = "thing.tgz"
url = "https://files.example.com/1.0/thing.tgz"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[verify_secret.TOKEN]
method = "POST"
url = "https://{param:STORE}.example.com/me"
headers = { X-Token = "{secret}", X-Other = "{slot:OTHER_KEY}" }
ok = "json.ok == true"
bad = "status == 401"
record = ["account.id"]
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
        ("secrets = [{ slot = \"TOKEN\", as = \"env\" }]", "restart_on_secret = true", "reads no slot"),
        ("slot = \"TOKEN\", as", "slot = \"OTHER\", as", "names the slot \"OTHER\""),
        ("slots = { TOKEN = \"TOKEN\" }", "slots = { TOKEN = \"OTHER\" }", "names the slot \"OTHER\""),
        ("command = [\"thing\"]", "command = []", "has no command"),
        ("https://{param", "http://{param", "components/thing.toml:47: the address"),
        (
            "https://{param:STORE}.example.com/me",
            "https://{param:STORE}/me",
            "isn't followed by a literal domain",
        ),
        ("https://{param:STORE}.example.com/me", "https://127.0.0.1/me", "has no literal host"),
        (
            "https://{param:STORE}.example.com/me",
            "https://x.example.com/{secret}",
            "a path that isn't literal",
        ),
        ("{param:STORE}", "{param:SHOP}", "names the param \"SHOP\""),
        (
            "pattern = \"^[a-z0-9]+$\"",
            "pattern = \"^[a-z0-9.]+$\"",
            "accepts \"a.b\": let it accept one label",
        ),
        ("method = \"POST\"", "method = \"PUT\"", "components/thing.toml:46: unknown variant `PUT`"),
        ("\"{secret}\"", "\"{token}\"", "components/thing.toml:48: {token} in \"{token}\" is no placeholder"),
        ("\"{secret}\"", "\"fixed\"", "it would say nothing about the slot"),
        ("{slot:OTHER_KEY}", "{slot:NO_KEY}", "names the slot \"NO_KEY\""),
        ("{slot:OTHER_KEY}", "{slot:TOKEN}", "write {secret} instead"),
        ("X-Other", "Host", "belongs to the connection"),
        ("X-Other", "\"X Other\"", "can't be the name of a header"),
        (
            "X-Other = \"{slot:OTHER_KEY}\" }",
            "Authorization = \"x\" }\nbasic = \"{secret}:\"",
            "use one of them",
        ),
        ("json.ok == true", "json.ok = true", "components/thing.toml:49: the condition"),
        ("json.ok == true", "status >= 200", "or `json.a.b == LITERAL`"),
        ("json.ok == true", "status == 401", "ok and bad are the same"),
        ("account.id", "*", "components/thing.toml:51: the field"),
        ("[verify_secret.TOKEN]", "[verify_secret.NOTHING]", "names the slot \"NOTHING\""),
        ("method = \"POST\"", "method = \"POST\"\nfollow = true", "unknown field `follow`"),
        ("https://files", "http://files", "must be https://HOST/"),
        ("https://files.example.com", "https://u:p@files.example.com", "without a user"),
        ("sha256 = \"0", "sha256 = \"F", "64 hex digits, in lower case"),
        ("sha256 = \"0", "sha256 = \"", "64 hex digits"),
        ("name = \"thing.tgz\"", "name = \"../thing\"", "its name is letters"),
        ("name = \"thing.tgz\"", "name = \"other.tgz\"", "no [[download]] brings it on macos"),
        ("name = \"thing.tgz\"", "name = \"other.tgz\"", "is named by no step"),
        ("\"$BOARD_CACHE/thing.tgz\"", "\"$BOARD_CACHE\"/*", "without a file's name"),
        ("url = \"https://files", "platforms = [\"macos\"]\nurl = \"https://files", "brings it on linux"),
        ("url = \"https://files", "team = \"ABCDE12345\"\nurl = \"https://files", "only macOS can check"),
        (
            "url = \"https://files",
            "platforms = [\"macos\"]\nteam = \"me\"\nurl = \"https://files",
            "like ABCDE12345",
        ),
    ];
    for (from, to, expected) in cases {
        let said = changed(from, to);
        assert!(said.contains(expected), "{to:?} should say {expected:?}, says:\n{said}");
    }
}

#[test]
fn a_package_names_its_team_and_a_name_means_one_file() {
    let manifest = |key: &str, extra: &str, digit: &str| {
        let sha256 = digit.repeat(64);
        let text = format!(
            r#"
key = "{key}"
name = "Thing"
category = "ai"
summary = "A thing."
platforms = ["macos"]
[[step]]
id = "install"
kind = "auto"
title = "Install it"
as = "root"
verify = 'true'
run = 'installer -pkg "$BOARD_CACHE/Thing.pkg" -target /'
[[download]]
name = "Thing.pkg"
url = "https://files.example.com/Thing.pkg"
sha256 = "{sha256}"
{extra}
"#
        );
        (key.to_owned(), text)
    };
    let said = |manifests: Vec<(String, String)>| {
        let bundle = shared::catalog::Bundle {
            serial: 1,
            min_serial: 0,
            not_after: shared::time::Timestamp::from_micros(i64::MAX),
            revoked_steps: Vec::new(),
            tiers: String::new(),
            manifests: manifests.into_iter().collect(),
        };
        check::report(&check::bundle(&bundle))
    };
    let team = "team = \"ABCDE12345\"";
    assert_eq!(said(vec![manifest("one", team, "0"), manifest("two", team, "0")]), "");
    assert!(said(vec![manifest("one", "", "0")]).contains("add the team that must have signed it"));
    let two = said(vec![manifest("one", team, "0"), manifest("two", team, "1")]);
    assert!(two.contains("components/two.toml download Thing.pkg: is another file in one"), "{two}");
    let mut twice = manifest("one", team, "0");
    let again = twice.1[twice.1.find("[[download]]").unwrap()..].to_owned();
    twice.1.push_str(&again);
    assert!(said(vec![twice]).contains("stands there twice"));
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

#[test]
fn a_step_of_the_board_names_an_action_and_the_slot_that_it_fills() {
    let good = include_str!("../../catalog/components/openrouter.toml")
        .replace("key = \"openrouter\"", "key = \"thing\"");
    assert_eq!(findings(&good), "");
    for (from, to, words) in [
        (
            "run = \"openrouter-key\"",
            "run = 'curl example.com'",
            "run names one of its actions (openrouter-key)",
        ),
        (
            "run = \"openrouter-key\"",
            "run = \"openrouter-key\"\ncheck = 'true'",
            "are for the agent; remove them",
        ),
        ("slots = [\"OPENROUTER_API_KEY\"]\n", "", "slots names the one our-managed slot"),
    ] {
        assert!(good.contains(from), "{from}");
        let found = findings(&good.replacen(from, to, 1));
        assert!(found.contains(words) && found.contains("step key"), "{to}: {found}");
    }
}

#[tokio::test]
async fn a_statement_of_succession_is_kept_in_its_order_and_only_as_it_was_signed() {
    use shared::random::SystemRandom;
    use shared::signing::{PublicKey, Purpose, Succession, SuccessionError, generate_key, sign_succession};
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let [old, new, stranger] = std::array::from_fn(|_| generate_key(&SystemRandom).unwrap());
        let key = |pem: &str| PublicKey::from_pem(pem).unwrap();
        let says = |serial, retires: Vec<PublicKey>| {
            let adds = retires.is_empty().then(|| key(&new.1));
            sign_succession(&Succession { purpose: Purpose::Publisher, serial, adds, retires }, &old.0)
                .unwrap()
        };
        let (first, second) = (says(1, Vec::new()), says(2, vec![key(&stranger.1)]));
        let now = fixture.app.now();
        let mut tx = fixture.app.db.write().await.unwrap();
        let refused = super::relay(&mut tx, &first, &key(&stranger.1), now).await;
        assert!(matches!(refused, Err(super::RelayError::Statement(SuccessionError::Signature))));
        for statement in [&first, &second] {
            super::relay(&mut tx, statement, &key(&old.1), now).await.unwrap();
        }
        let again = super::relay(&mut tx, &first, &key(&old.1), now).await;
        assert!(matches!(again, Err(super::RelayError::There)));
        let told = super::successions_beyond(&mut tx, &[]).await.unwrap();
        assert_eq!(told, [first.clone(), second.clone()]);
        let rest = super::successions_beyond(&mut tx, &[first.digest()]).await.unwrap();
        assert_eq!(rest, [second]);
        tx.commit().await.unwrap();
    })
    .await;
}
