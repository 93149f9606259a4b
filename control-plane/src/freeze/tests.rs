use std::path::Path;

use shared::secret::Secret;
use shared::time::Clock as _;

use super::{begin, is_on, latest, lift};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::runbook::{self, Carried};
use crate::secrets::{self, CopyError, SecretError};
use crate::testing::Fixture;
use crate::{enrollment, incident};

#[tokio::test]
async fn a_frozen_board_opens_delivers_copies_and_offers_nothing_and_takes_new_values() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let slot = fixture.our_slot().await;
        let stored = fixture.get_client(client).await;
        let value = Secret::new("ours-first-value".to_owned());
        secrets::put(app, Fixture::who(), &stored, &slot, &value).await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        let device = enrollment::get_device(&mut tx, device).await.unwrap();
        runbook::ensure(app, &mut tx, &device).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let delivery = secrets::for_device(&mut tx, device.id).await.unwrap().remove(0);
        let before = incident::exposed(&mut tx).await.unwrap().1;
        assert_eq!((before.len(), before[0].rotated), (1, false));
        drop(tx);

        begin(app, Fixture::who(), "the server was broken into").await.unwrap();
        assert_eq!(begin(app, Fixture::who(), "again").await.unwrap_err().public.status, 409);
        let decrypts = decrypts(&fixture).await;
        let sealed = secrets::seal(app, &delivery, "digest").await;
        assert!(matches!(sealed, Err(SecretError::Frozen)), "{sealed:?}");
        let copied = secrets::copy(app, Fixture::who(), fixture.user, client, slot.id, "typed").await;
        assert!(matches!(copied, Err(CopyError::Refused(_))), "{copied:?}");
        assert!(runbook::next_offer(app, &device, &Carried::default()).await.unwrap().is_none());

        let planned = runbook::plan::ask_plan(app, Fixture::who(), &device).await.unwrap_err();
        assert_eq!(planned.public.kind, "urn:board:frozen");

        fixture.clock.advance(std::time::Duration::from_secs(60));
        let next = Secret::new("ours-second-value".to_owned());
        let rotated = secrets::rotate(app, Fixture::who(), client, slot.id, &next, "exposed").await.unwrap();
        assert_eq!(rotated.version, 2);
        let after = incident::exposed(&mut app.db.read().await.unwrap()).await.unwrap().1;
        assert!(after[0].rotated);
        let csv = String::from_utf8(incident::as_csv(&after).unwrap()).unwrap();
        assert!(csv.contains("Example Client") && !csv.contains("ours-"), "{csv}");
        assert_eq!(self::decrypts(&fixture).await, decrypts, "nothing was opened");

        lift(app, Fixture::who(), "the server is a new one").await.unwrap();
        assert_eq!(lift(app, Fixture::who(), "again").await.unwrap_err().public.status, 409);
        let mut tx = app.db.read().await.unwrap();
        assert!(!is_on(&mut tx).await.unwrap() && !latest(&mut tx).await.unwrap().unwrap().is_open());
        let delivery = secrets::for_device(&mut tx, device.id).await.unwrap().remove(0);
        drop(tx);
        assert!(secrets::seal(app, &delivery, "digest").await.unwrap().is_some());
        assert!(runbook::next_offer(app, &device, &Carried::default()).await.unwrap().is_some());
        begin(app, Fixture::who(), "a second time").await.unwrap();
        assert!(fixture.clock.now() >= latest(&mut app.db.read().await.unwrap()).await.unwrap().unwrap().at);
    })
    .await;
}

async fn decrypts(fixture: &Fixture) -> usize {
    let mut tx = fixture.app.db.read().await.unwrap();
    let entries = audit::page(&mut tx, None, 1000).await.unwrap();
    let opens = [Action::SecretDecrypted, Action::SecretCopied];
    entries.iter().filter(|stored| opens.contains(&stored.entry.action)).count()
}

/// Every file that opens a ciphertext, and how the freeze stands to it.
const OPENS: &[&str] = &[
    "enrollment/ca.rs",       // the authority's key: certificates go on
    "keys/kept.rs",           // keys of old tokens and codes: no secret of a client's
    "keys/provider/local.rs", // unwraps the root key
    "secrets/envelope.rs",    // the one below
];

/// Every file that opens an envelope: through `open` and `open_board`, which ask the freeze, or for a rekey, or to end keys at
/// their provider.
const OPENS_ENVELOPES: &[&str] = &["secrets/board.rs", "secrets/mod.rs", "secrets/rekey.rs"];

/// Who opens the board's own secret although it is frozen.
const ENDS_KEYS: &[&str] = &["providers/mod.rs", "secrets/board.rs", "secrets/mod.rs"];

#[test]
fn nothing_is_decrypted_around_the_freeze() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    let (mut opens, mut envelopes, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&source).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if !name.ends_with(".rs") || name.contains("tests") || name == "aead.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("aead::open(") {
                opens.push(name.clone());
            }
            if text.contains("open_board_to_end") {
                ends.push(name.clone());
            }
            if text.contains("open_sealed(") || text.contains("envelope::open(") {
                envelopes.push(name);
            }
        }
    }
    opens.sort();
    envelopes.sort();
    ends.sort();
    assert_eq!(opens, OPENS, "a decrypt asks `freeze::is_on` first, or says here why not");
    assert_eq!(envelopes, OPENS_ENVELOPES);
    assert_eq!(ends, ENDS_KEYS);
    let secrets = std::fs::read_to_string(source.join("secrets/mod.rs")).unwrap();
    let open =
        secrets.split("async fn open(").nth(1).and_then(|text| text.split("open_sealed(").next()).unwrap();
    assert!(open.contains("freeze::is_on(tx)"), "{open}");
    let board = std::fs::read_to_string(source.join("secrets/board.rs")).unwrap();
    let open =
        board.split("pub async fn open_board(").nth(1).and_then(|text| text.split("\n}\n").next()).unwrap();
    assert!(open.contains("freeze::is_on("), "{open}");
}
