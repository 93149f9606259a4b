use std::time::Duration;

use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{SlotReport, SlotState};
use shared::protocol::link::HeldSecret;
use shared::secret::Secret;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{Known, Line, Statement, Told, gather};
use crate::audit::{self, Action, Entry};
use crate::clients::{self, Scope};
use crate::db::testing::on_both;
use crate::testing::Fixture;
use crate::web::Moment;
use crate::{enrollment, inventory, on, secrets};

const VALUE: &str = "ours-canary-4e0c";
const EMAIL: &str = "consultant@example.com";

async fn known(fixture: &Fixture, client: ClientId) -> Known {
    let mut tx = fixture.app.db.read().await.unwrap();
    gather(&fixture.app, &mut tx, client).await.unwrap()
}

async fn said(fixture: &Fixture, client: ClientId) -> Statement {
    Statement::of(&known(fixture, client).await)
}

fn the(mut told: Vec<Told>) -> Told {
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

async fn ours(fixture: &Fixture, client: ClientId) -> Told {
    the(said(fixture, client).await.ours)
}

/// What is said of our secret on the client's only Mac.
async fn there(fixture: &Fixture, client: ClientId) -> Line {
    ours(fixture, client).await.macs.remove(0)
}

async fn sql(fixture: &Fixture, text: &str) {
    let mut tx = fixture.app.db.write().await.unwrap();
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(text.to_owned())).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

async fn store(fixture: &Fixture, client: ClientId) {
    let (record, slot) = (fixture.get_client(client).await, fixture.our_slot().await);
    let value = Secret::new(VALUE.to_owned());
    secrets::put(&fixture.app, Fixture::who(), &record, &slot, &value).await.unwrap();
}

async fn plan(fixture: &Fixture, device: DeviceId) {
    let mut tx = fixture.app.db.write().await.unwrap();
    secrets::plan(&fixture.app, &mut tx, device).await.unwrap();
    tx.commit().await.unwrap();
}

async fn holds(fixture: &Fixture, device: DeviceId, version: u64) {
    let held = HeldSecret { component: "tool".into(), slot: "OUR_KEY".into(), version };
    let mut tx = fixture.app.db.write().await.unwrap();
    secrets::note_held(&mut tx, device, &[held], fixture.app.now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn reports(fixture: &Fixture, device: DeviceId, slot: &str, state: SlotState) {
    let report = SlotReport {
        component: "tool".into(),
        slot: slot.into(),
        state,
        version: None,
        observed_at: fixture.app.now(),
        check: None,
    };
    let mut tx = fixture.app.db.write().await.unwrap();
    inventory::apply(&mut tx, device, &[], &[report], fixture.app.now()).await.unwrap();
    tx.commit().await.unwrap();
}

fn today(fixture: &Fixture) -> String {
    Moment { at: fixture.app.now(), now: fixture.app.now() }.day()
}

#[tokio::test]
async fn a_secret_of_ours_is_followed_from_its_entry_to_its_end() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let day = today(&fixture);
        let empty = ours(&fixture, client).await;
        assert!(empty.kept.starts_with("Not there yet") && empty.open && empty.taken.is_none(), "{empty:?}");

        store(&fixture, client).await;
        let kept = ours(&fixture, client).await;
        assert_eq!((kept.component.as_str(), kept.name.as_str()), ("Tool", "Our key"));
        let words = format!("Entered by {EMAIL} on {day}. On no Mac yet.");
        assert_eq!((kept.kept, kept.open, kept.taken.unwrap().words), (words, false, "never.".to_owned()));

        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        plan(&fixture, device).await;
        let waits = there(&fixture, client).await;
        assert_eq!(
            (waits.macs[0].as_str(), waits.words.as_str()),
            ("reception-mini", "Sent when the Mac is on again.")
        );
        let on = fixture.app.links.open(device, fixture.app.now());
        assert_eq!(there(&fixture, client).await.words, "On its way.");
        drop(on);
        sql(&fixture, "UPDATE deliveries SET state = 'refused', reason = 'the store is full'").await;
        let refused = there(&fixture, client).await;
        assert_eq!(
            (refused.words.as_str(), refused.said.as_deref()),
            ("Refused it.", Some("the store is full"))
        );
        assert!(refused.open);
        sql(&fixture, "UPDATE deliveries SET state = 'receipted', receipt_at = created_at, reason = NULL")
            .await;
        let opened = format!("Opened there since {day}.");
        assert_eq!(
            there(&fixture, client).await,
            Line { macs: vec!["reception-mini".into()], words: opened.clone(), said: None, open: false }
        );
        for (state, more, open) in [
            (SlotState::Verified, " It works.", false),
            (SlotState::Rejected, " The service that it is for refuses it: a new one is needed.", true),
            (SlotState::Unreadable, " The Mac can't read it at the moment.", true),
            (SlotState::Present, "", false),
        ] {
            fixture.clock.advance(Duration::from_secs(1));
            reports(&fixture, device, "OUR_KEY", state).await;
            let line = there(&fixture, client).await;
            assert_eq!((line.words, line.open), (format!("{opened}{more}"), open), "{state}");
        }

        let slot = fixture.our_slot().await.id;
        holds(&fixture, device, 1).await;
        let value = Secret::new("ours-canary-second".to_owned());
        secrets::rotate(&fixture.app, Fixture::who(), client, slot, &value, "A laptop was stolen")
            .await
            .unwrap();
        let second = ours(&fixture, client).await;
        assert_eq!(second.kept, format!("Entered by {EMAIL} on {day}, version 2."));
        assert_eq!(
            second.macs[0].words,
            "Sent when the Mac is on again. Meanwhile it goes on with version 1."
        );
        sql(&fixture, "UPDATE devices SET state = 'quarantined'").await;
        assert!(there(&fixture, client).await.words.starts_with("Not sent while the Mac is stopped."));
        sql(&fixture, "UPDATE devices SET state = 'leaving'").await;
        assert!(there(&fixture, client).await.words.starts_with("Not sent any more."));
        sql(&fixture, "UPDATE devices SET state = 'approved'").await;
        assert!(
            there(&fixture, client).await.words.starts_with("Not sent before the Mac has proved its keys.")
        );
        sql(&fixture, "UPDATE devices SET state = 'enrolled'").await;
        holds(&fixture, device, 9).await;
        assert!(there(&fixture, client).await.words.starts_with("Has a newer one than our board."));

        sql(&fixture, "UPDATE clients SET salt = NULL, engagement = 'purged'").await;
        assert_eq!(ours(&fixture, client).await.kept, "Locked for good on our board: the key was erased.");
        assert!(said(&fixture, client).await.end.contains("were erased on our board"));
    })
    .await;
}

#[tokio::test]
async fn whoever_took_a_secret_out_is_named_with_the_reason() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["tool"]).await;
        store(&fixture, client).await;
        let (slot, day) = (fixture.our_slot().await.id, today(&fixture));
        let copy = async |why| {
            secrets::copy(&fixture.app, Fixture::who(), fixture.user, client, slot, why).await.unwrap();
            ours(&fixture, client).await.taken.unwrap()
        };
        let once = copy("The vendor wants it typed").await;
        assert_eq!(
            (once.words, once.reason.as_deref()),
            (format!("by {EMAIL} on {day}."), Some("The vendor wants it typed"))
        );
        let twice = copy("Once more").await;
        assert_eq!(
            (twice.words, twice.reason.as_deref()),
            (format!("by {EMAIL} on {day}. 2 times in all."), Some("Once more"))
        );
        let value = Secret::new("ours-canary-second".to_owned());
        secrets::rotate(&fixture.app, Fixture::who(), client, slot, &value, "It was typed").await.unwrap();
        let before = ours(&fixture, client).await.taken.unwrap();
        assert!(before.words.starts_with("this one never; the one before it by"), "{}", before.words);
        // Another client's copies are nothing of this one's.
        let other = fixture.client("Other Client", &["tool"]).await;
        store(&fixture, other).await;
        assert_eq!(ours(&fixture, other).await.taken.unwrap().words, "never.");
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_theirs_is_said_to_be_where_the_mac_has_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["tool"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let day = today(&fixture);
        let theirs = async || the(said(&fixture, client).await.theirs);
        let none = theirs().await;
        assert_eq!((none.kept.as_str(), none.macs[0].words.as_str()), ("", "Not there yet."));
        assert!(none.vault.unwrap().starts_with("op://") && none.taken.is_none());
        for (state, words, open) in [
            (SlotState::Present, format!("Typed on the Mac. There on {day}."), false),
            (SlotState::Unverifiable, format!("Typed on the Mac. There on {day}. Whether it works can't be tried from there."), false),
            (SlotState::Rejected, format!("Typed on the Mac. There on {day}. The service that it is for refuses it: a new one is needed."), true),
            (SlotState::Unreadable, "Whether it is there can't be said. The Mac can't read it at the moment.".to_owned(), true),
            (SlotState::Empty, "Not there yet.".to_owned(), true),
            (SlotState::Verified, format!("Typed on the Mac. There on {day}. It works."), false),
        ] {
            fixture.clock.advance(Duration::from_secs(1));
            reports(&fixture, device, "THEIR_TOKEN", state).await;
            let line = theirs().await.macs.remove(0);
            assert_eq!((line.words, line.open), (words, open), "{state}");
        }

        let known = known(&fixture, client).await;
        let crate::catalog::AnySlot::Theirs(slot) = &known.slots[1] else { panic!("the second is theirs") };
        let entry = |action, sealed: &str| {
            Entry::new(fixture.app.now(), Fixture::who(), action).client(client).slot(slot.id).device(device).detail("sealed", sealed)
        };
        let write = async |entry: Entry| {
            let mut tx = fixture.app.db.write().await.unwrap();
            audit::append(&mut tx, &entry).await.unwrap();
            tx.commit().await.unwrap();
            theirs().await.macs.remove(0).words
        };
        let sent = write(entry(Action::PasteRelayed, "in the browser")).await;
        assert!(sent.contains("typed on the Mac, or sent by") && sent.contains("page of our board"), "{sent}");
        let refused = write(entry(Action::PasteAnswered, "").reason("The device refused it.")).await;
        assert!(refused.contains("typed on the Mac, or sent by"), "{refused}");
        write(entry(Action::PasteRelayed, "on a consultant's computer")).await;
        let sent = write(entry(Action::PasteAnswered, "").reason("present")).await;
        let begins = format!("Sent by {EMAIL} on {day}, from their computer, locked for this Mac alone");
        assert!(sent.starts_with(&begins) && !sent.contains("typed"), "{sent}");
    })
    .await;
}

#[tokio::test]
async fn macs_and_what_is_left_on_them_are_said_after_their_end() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        store(&fixture, client).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        plan(&fixture, device).await;
        let mac = async || said(&fixture, client).await.macs.remove(0);
        let day = today(&fixture);
        let off = mac().await;
        assert!(off.words.starts_with(&format!("With us since {day}. It was off")), "{}", off.words);
        assert!(off.words.contains("in files") && off.open, "it joined with --dev: {off:?}");
        let on = fixture.app.links.open(device, fixture.app.now());
        assert!(mac().await.words.contains("It was on when this page was made."));
        drop(on);
        sql(&fixture, "UPDATE devices SET state = 'quarantined'").await;
        assert!(mac().await.words.contains("Stopped: it says it is another machine"));
        sql(&fixture, "UPDATE devices SET state = 'leaving'").await;
        assert!(mac().await.words.contains("Leaving"));
        sql(&fixture, "UPDATE devices SET state = 'approved'").await;
        assert!(mac().await.words.contains("It can open nothing."));
        sql(&fixture, "UPDATE devices SET state = 'enrolled', dev = FALSE").await;
        assert!(!mac().await.open);

        sql(&fixture, "UPDATE deliveries SET state = 'receipted', receipt_at = created_at").await;
        holds(&fixture, device, 1).await;
        reports(&fixture, device, "THEIR_TOKEN", SlotState::Present).await;
        let fewer = Scope { components: ["base".to_owned()].into(), ..Scope::default() };
        clients::choose_scope(&fixture.app, Fixture::who(), client, &fewer).await.unwrap();
        let left = said(&fixture, client).await;
        assert!(left.ours.is_empty() && left.theirs.is_empty());
        let [ours, theirs] = &left.former[..] else { panic!("{left:?}") };
        assert!(
            ours.kept.starts_with("Not part of our work for you any more. Still locked on our board,"),
            "{ours:?}"
        );
        assert_eq!(ours.macs[0].words, "Still there. We have to take it away.");
        assert!(theirs.macs[0].words.starts_with("Still there on"), "{theirs:?}");
        assert_eq!(
            left.summary,
            "What we set up for you needs no secret. 2 things are still open; they are marked below."
        );

        let both = Scope { components: ["base".to_owned(), "tool".to_owned()].into(), ..Scope::default() };
        clients::choose_scope(&fixture.app, Fixture::who(), client, &both).await.unwrap();
        enrollment::revoke(&fixture.app, Fixture::who(), device, "It was stolen").await.unwrap();
        let gone = said(&fixture, client).await;
        assert_eq!(gone.macs[0].words, format!("Shut out on {day}. It gets nothing from us any more."));
        assert!(gone.ours[0].macs[0].words.starts_with("May still have it: it was there"), "{gone:?}");
        assert!(gone.theirs[0].macs[0].words.starts_with("May still have it: it was there on"), "{gone:?}");
        let value = Secret::new("ours-canary-second".to_owned());
        let slot = fixture.our_slot().await.id;
        secrets::rotate(&fixture.app, Fixture::who(), client, slot, &value, "It was stolen").await.unwrap();
        let line = there(&fixture, client).await;
        assert_eq!(
            (line.words, line.open),
            (format!("May still have an old one. It was replaced on {day}."), false)
        );
    })
    .await;
}

#[tokio::test]
async fn the_page_can_be_checked_against_the_log() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["tool"]).await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let head = audit::head(&mut tx).await.unwrap();
        drop(tx);
        let check = said(&fixture, client).await.check;
        assert_eq!((check.epoch, check.seq, check.is_doubted), (head.epoch, head.seq, false));
        let whole = shared::crypto::hex(&head.hash);
        assert_eq!((check.code.len(), whole.starts_with(&check.code.replace(' ', ""))), (19, true));
        store(&fixture, client).await;
        let after = said(&fixture, client).await.check;
        assert!(after.seq > check.seq && after.code != check.code);
    })
    .await;
}

#[test]
fn macs_of_which_the_same_is_said_stand_together() {
    let line =
        |mac: &str, words: &str| Line { macs: vec![mac.into()], words: words.into(), said: None, open: true };
    let all = Line::together(
        [line("a", "On its way."), line("b", "Refused it."), line("c", "On its way.")].into_iter(),
    );
    let macs: Vec<_> = all.iter().map(|line| line.macs.join(" ")).collect();
    assert_eq!(macs, ["a c", "b"]);
}
