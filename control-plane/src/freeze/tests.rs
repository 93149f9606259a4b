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
