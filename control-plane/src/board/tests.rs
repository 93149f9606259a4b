use std::path::Path;

use shared::ids::ClientId;
use shared::random::SystemRandom;
use shared::secret::Secret;
use sqlx::AssertSqlSafe;

use super::{RekeyError, Rekeyed, rekey, store};
use crate::access::tokens::{NewToken, make_token, token_of};
use crate::access::{self, Role};
use crate::audit::{self, Action, Verdict, Who};
use crate::db::Db;
use crate::db::testing::{on_both, on_sqlite, owner_of};
use crate::enrollment::ca::Authority;
use crate::freeze;
use crate::keys::{self, KeyError, Outside, Source, TOKENS_LIVE};
use crate::offboarding;
use crate::on;
use crate::secrets::{self, BoardSecret, Moved, SecretError};
use crate::testing::{Fixture, TestDevice};

const VALUE: &str = "ours-canary-3e19";
const MANAGEMENT: &str = "sk-or-v1-management-canary-0123456789abcdef";
const BOARDS: BoardSecret = BoardSecret::OpenRouterManagement;
const REASON: &str = "to compare";

impl Fixture {
    fn outside(&self) -> Outside {
        Outside::of(self.clock.clone(), &[])
    }

    fn key(&self, name: &str) -> Source {
        Source::File(self.keys.path().join(name))
    }

    async fn rekey(&self, to: &str) -> Result<Rekeyed, RekeyError> {
        rekey(&self.app.db, None, &self.key(to), false, &self.outside(), &SystemRandom).await
    }

    async fn store(&self, client: ClientId, value: &str) -> Result<u64, SecretError> {
        let (stored, slot) = (self.get_client(client).await, self.our_slot().await);
        let value = Secret::new(value.to_owned());
        secrets::put(&self.app, Self::who(), &stored, &slot, &value).await
    }

    async fn manage(&self) {
        let app = &self.app;
        let value = Secret::new(MANAGEMENT.to_owned());
        let made_of = (&*app.clock, &*app.random);
        secrets::put_board(&app.db, &app.root, made_of, Self::who(), BOARDS, &value).await.unwrap();
    }

    async fn managed(&self) -> String {
        let value = secrets::open_board(&self.app, Self::who(), BOARDS, REASON).await.unwrap().unwrap();
        value.expose().clone()
    }

    /// By the copy button's way, which opens it.
    async fn opened(&self, client: ClientId) -> String {
        let slot = self.our_slot().await.id;
        let value = secrets::copy(&self.app, Self::who(), self.user, client, slot, REASON).await.unwrap();
        String::from_utf8(value.expose().clone()).unwrap()
    }

    async fn clients_with_secrets(&self, count: usize) -> Vec<ClientId> {
        let mut clients = Vec::new();
        for number in 0..count {
            let client = self.client(&format!("Client {number}"), &["tool"]).await;
            self.store(client, &format!("{VALUE}-{number}")).await.unwrap();
            clients.push(client);
        }
        clients
    }

    async fn log(&self) -> Vec<audit::Entry> {
        let mut tx = self.app.db.read().await.unwrap();
        assert!(matches!(audit::verify(&mut tx).await.unwrap(), Verdict::Holds { .. }));
        let mut log = audit::page(&mut tx, None, 10_000).await.unwrap();
        log.reverse();
        log.into_iter().map(|stored| stored.entry).collect()
    }

    async fn living(&self) -> Vec<keys::Listed> {
        let mut tx = self.app.db.read().await.unwrap();
        keys::living(&mut tx).await.unwrap()
    }
}

async fn run(db: &Db, sql: &str) {
    let mut tx = db.write().await.unwrap();
    on!(&mut tx, conn => sqlx::query(AssertSqlSafe(sql.to_owned())).execute(conn).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

/// A version that a rekey made and stored before it was killed.
async fn begin(fixture: &Fixture, name: &str) -> keys::NewVersion {
    let source = fixture.key(name);
    let provider = source.open_or_create(&fixture.outside(), &SystemRandom).unwrap();
    let (random, board_id) = (&SystemRandom, fixture.app.board_id);
    let new = keys::NewVersion::make(&source, &*provider, board_id, 2, random).await.unwrap();
    let mut tx = fixture.app.db.write().await.unwrap();
    assert!(new.store(&mut tx, fixture.app.now()).await.unwrap());
    tx.commit().await.unwrap();
    new
}

#[tokio::test]
async fn a_rekey_moves_every_secret_with_its_entry_and_delivers_nothing_again() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let clients = fixture.clients_with_secrets(3).await;
        let (_, device) = fixture.enrolled(clients[0], "A-UUID").await;
        let before = fixture.living().await;
        let done = fixture.rekey("two.key").await.unwrap();
        let Rekeyed::Done { old: 1, new: 2, moved: 3, fingerprint, .. } = done else { panic!("{done:?}") };
        assert_ne!(fingerprint, before[0].fingerprint);

        let log = fixture.log().await;
        let at = |action| log.iter().position(|entry| entry.action == action).unwrap();
        let moved: Vec<_> = log.iter().filter(|entry| entry.action == Action::SecretRekeyed).collect();
        assert!(at(Action::RekeyStarted) < at(Action::SecretRekeyed));
        assert_eq!(log.last().unwrap().action, Action::RekeyEnded);
        assert_eq!((moved.len(), log[at(Action::RekeyStarted)].detail["rows"].as_str()), (3, "3"));
        assert!(moved.iter().all(|entry| entry.detail["version"] == "1" && entry.detail["to"] == "2"));

        let mut tx = fixture.app.db.read().await.unwrap();
        let versions: Vec<_> = keys::living(&mut tx).await.unwrap().into_iter().map(|key| key.version).collect();
        assert_eq!(versions, [2]);
        let wrapped: i64 = on!(&mut tx, conn => sqlx::query_scalar(
            "SELECT count(*) FROM root_keys WHERE version = 1 AND length(wrapped) = 0 AND retired_at IS NOT NULL",
        ).fetch_one(conn).await).unwrap();
        assert_eq!(wrapped, 1, "the old wrapped key is erased");
        let deliveries = secrets::for_device(&mut tx, device).await.unwrap();
        assert!(deliveries.iter().all(|delivery| delivery.version == 1), "{deliveries:?}");
        drop(tx);
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(fixture.opened(*client).await, format!("{VALUE}-{number}"));
        }
        let again = fixture.rekey("two.key").await.unwrap();
        assert_eq!(again, Rekeyed::Nothing { version: 2, fingerprint });
        assert_eq!(fixture.log().await.iter().filter(|e| e.action == Action::RekeyStarted).count(), 1);
        let (outside, to) = (fixture.outside(), fixture.key("two.key"));
        let fresh = rekey(&fixture.app.db, None, &to, true, &outside, &SystemRandom).await.unwrap();
        assert!(matches!(fresh, Rekeyed::Done { old: 2, new: 3, moved: 3, .. }), "{fresh:?}");
    })
    .await;
}

#[tokio::test]
async fn a_board_that_runs_meanwhile_writes_under_the_newest_and_reads_both() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let clients = fixture.clients_with_secrets(2).await;
        begin(&fixture, "two.key").await;
        assert_eq!(fixture.app.root.newest().version, 1, "it hasn't looked yet");
        fixture.store(clients[0], "ours-new-value").await.unwrap();
        assert_eq!(fixture.app.root.newest().version, 2);
        let mut tx = fixture.app.db.read().await.unwrap();
        let left = secrets::unmoved(&mut tx, 2).await.unwrap();
        assert_eq!(left.iter().map(|place| place.client_id).collect::<Vec<_>>(), [clients[1]]);
        drop(tx);
        assert_eq!(fixture.opened(clients[0]).await, "ours-new-value");
        assert_eq!(fixture.opened(clients[1]).await, format!("{VALUE}-1"));
        let refused = fixture.rekey("three.key").await.unwrap_err();
        assert!(matches!(refused, RekeyError::Unfinished(_)), "{refused}");
        let done = fixture.rekey("two.key").await.unwrap();
        assert!(matches!(done, Rekeyed::Done { new: 2, moved: 1, .. }), "{done:?}");
        assert_eq!(fixture.opened(clients[1]).await, format!("{VALUE}-1"));
    })
    .await;
}

#[tokio::test]
async fn no_version_is_retired_while_somebody_writes_under_it() {
    on_both(|db| async move {
        let Db::Postgres(_) = &db else { return };
        let fixture = Fixture::new(db.clone()).await;
        let mut writing = db.write().await.unwrap();
        assert_eq!(fixture.app.root.for_writing(&mut writing).await.unwrap().version, 1);
        begin(&fixture, "two.key").await;
        let retiring = {
            let db = db.clone();
            let now = fixture.app.now();
            tokio::spawn(async move {
                let mut tx = db.write().await.unwrap();
                let retired = keys::retire(&mut tx, 1, now).await.unwrap();
                tx.commit().await.unwrap();
                retired
            })
        };
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(!retiring.is_finished(), "it waits for the writer");
        writing.commit().await.unwrap();
        assert!(retiring.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn sessions_links_tokens_and_codes_outlive_the_key_they_were_hashed_with() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Client", &["base"]).await;
        let new = NewToken { name: "monitoring".into(), roles: vec![Role::Support], days: 365, user: None };
        let mut tx = app.db.write().await.unwrap();
        let (clock, random) = (&*app.clock, &*app.random);
        let token = make_token(&mut tx, &app.root, clock, random, Who::cli(), &new).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        let roles = [Role::Consultant];
        let link =
            access::create_user(&mut tx, &app.root, clock, random, "b@example.com", &roles).await.unwrap();
        tx.commit().await.unwrap();
        let code = fixture.code(client).await;
        for to in ["two.key", "three.key"] {
            fixture.rekey(to).await.unwrap();
            let mut tx = app.db.write().await.unwrap();
            app.root.look(&mut tx).await.unwrap();
        }
        let password = Secret::new("a long test passphrase".to_owned());
        let session = access::accept_link(app, link.expose(), &password, "192.0.2.1").await.unwrap();
        assert!(access::user_of(app, session.expose()).await.unwrap().is_some());
        fixture.rekey("four.key").await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        app.root.look(&mut tx).await.unwrap();
        drop(tx);
        assert!(access::user_of(app, session.expose()).await.unwrap().is_some());
        access::sign_out(app, session.expose(), Who::cli()).await.unwrap();
        assert!(access::user_of(app, session.expose()).await.unwrap().is_none());
        assert_eq!(token_of(app, token.expose(), "192.0.2.1").await.unwrap().name, "monitoring");
        assert!(token_of(app, "board_made-up", "192.0.2.1").await.is_err());
        let device = TestDevice::new("A-UUID", app.now());
        device.join(app, &code).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        Authority::load(&mut tx, &app.root, app.board_id).await.unwrap();
        let hashes = app.root.hashes(keys::Purpose::Token, "x").len();
        assert_eq!(hashes, 4, "the living key and three kept ones");
        drop(tx);

        fixture.clock.advance(TOKENS_LIVE);
        fixture.rekey("five.key").await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        app.root.look(&mut tx).await.unwrap();
        assert_eq!(app.root.hashes(keys::Purpose::Token, "x").len(), 2, "ended ones are gone");
    })
    .await;
}

#[tokio::test]
async fn a_rekey_moves_the_secrets_of_an_ended_client_until_its_purge_and_nothing_after() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let clients = fixture.clients_with_secrets(2).await;
        offboarding::end(app, Fixture::who(), clients[0], false).await.unwrap();
        assert!(matches!(fixture.rekey("two.key").await.unwrap(), Rekeyed::Done { moved: 2, .. }));
        offboarding::reactivate(app, Fixture::who(), clients[0]).await.unwrap();
        assert_eq!(
            fixture.opened(clients[0]).await,
            format!("{VALUE}-0"),
            "it can be reactivated afterwards"
        );
        offboarding::end(app, Fixture::who(), clients[0], false).await.unwrap();
        fixture.clock.advance(std::time::Duration::from_secs(30 * 24 * 3600));
        let purged = offboarding::purge_due(&app.db, &Who::cli(), app.now(), None).await.unwrap();
        assert_eq!((purged.len(), purged[0].secrets), (1, 1));
        assert!(matches!(fixture.rekey("three.key").await.unwrap(), Rekeyed::Done { moved: 1, .. }));
        assert_eq!(fixture.opened(clients[1]).await, format!("{VALUE}-1"));
    })
    .await;
}

#[tokio::test]
async fn a_rekey_goes_on_while_the_board_is_frozen_and_new_values_are_under_the_new_key() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.clients_with_secrets(1).await[0];
        freeze::begin(app, Fixture::who(), "the root key was copied").await.unwrap();
        assert!(matches!(fixture.rekey("two.key").await.unwrap(), Rekeyed::Done { moved: 1, .. }));
        let next = Secret::new("ours-after-the-rekey".to_owned());
        let slot = fixture.our_slot().await.id;
        secrets::rotate(app, Fixture::who(), client, slot, &next, "exposed").await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        assert!(secrets::unmoved(&mut tx, 2).await.unwrap().is_empty(), "not under the old one");
        drop(tx);
        let log = fixture.log().await;
        let opened = [Action::SecretDecrypted, Action::SecretCopied];
        assert!(!log.iter().any(|entry| opened.contains(&entry.action)));
        assert_eq!(log.iter().filter(|entry| entry.action == Action::SecretRekeyed).count(), 1);
        freeze::lift(app, Fixture::who(), "it has a new one").await.unwrap();
        assert_eq!(fixture.opened(client).await, "ours-after-the-rekey");
    })
    .await;
}

#[tokio::test]
async fn a_second_rekey_is_refused_until_the_firsts_lease_is_over() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        fixture.clients_with_secrets(1).await;
        let now = fixture.app.now();
        let until = now.after(std::time::Duration::from_secs(2));
        let mut tx = fixture.app.db.write().await.unwrap();
        assert_eq!(store::take_lease(&mut tx, &[1; 16], now, until).await.unwrap(), 1);
        assert_eq!(store::take_lease(&mut tx, &[2; 16], now, until).await.unwrap(), 0);
        tx.commit().await.unwrap();
        let before = fixture.log().await.len();
        assert!(matches!(fixture.rekey("two.key").await.unwrap_err(), RekeyError::Busy));
        assert_eq!(
            (fixture.living().await.len(), fixture.log().await.len()),
            (1, before),
            "nothing was changed"
        );
        fixture.clock.advance(std::time::Duration::from_secs(2));
        assert!(matches!(fixture.rekey("two.key").await.unwrap(), Rekeyed::Done { moved: 1, .. }));
        let mut tx = fixture.app.db.write().await.unwrap();
        assert_eq!(store::renew_lease(&mut tx, &[1; 16], until).await.unwrap(), 0, "the first has lost it");
    })
    .await;
}

#[tokio::test]
async fn what_does_not_open_is_named_and_keeps_the_old_key_until_it_is_stored_again() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let clients = fixture.clients_with_secrets(3).await;
        let broken = match &db {
            Db::Sqlite(_) => "zeroblob(60)",
            Db::Postgres(_) => "decode(repeat('00', 60), 'hex')",
        };
        let which = "(SELECT id FROM clients WHERE name = 'Client 1')";
        run(
            &owner_of(&db).await,
            &format!("UPDATE client_credentials SET encrypted_value = {broken} WHERE client_id = {which}"),
        )
        .await;
        for moved in [2, 0] {
            let refused = fixture.rekey("two.key").await.unwrap_err();
            let RekeyError::Unmovable { count: 1, named } = &refused else { panic!("{refused}") };
            assert!(named[0].starts_with("\"Client 1\" tool/OUR_KEY: "), "{refused}");
            let log = fixture.log().await;
            let started = log.iter().rfind(|entry| entry.action == Action::RekeyStarted).unwrap();
            assert_eq!(started.detail["rows"], (moved + 1).to_string());
            assert_eq!(fixture.living().await.len(), 2);
        }
        // What the error advises.
        let (slot, value) = (fixture.our_slot().await.id, Secret::new("ours-once-more".to_owned()));
        let rotated = secrets::rotate(&fixture.app, Fixture::who(), clients[1], slot, &value, REASON).await;
        assert_eq!(rotated.unwrap().version, 2);
        assert!(matches!(fixture.rekey("two.key").await.unwrap(), Rekeyed::Done { moved: 0, .. }));
        assert_eq!(fixture.opened(clients[1]).await, "ours-once-more");
        assert_eq!(fixture.opened(clients[2]).await, format!("{VALUE}-2"));
    })
    .await;
}

#[tokio::test]
async fn what_was_purged_holds_no_rekey_up() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        fixture.clients_with_secrets(3).await;
        run(&owner_of(&db).await, "UPDATE clients SET salt = NULL WHERE name = 'Client 1'").await;
        let done = fixture.rekey("two.key").await.unwrap();
        assert!(matches!(done, Rekeyed::Done { moved: 2, .. }), "{done:?}");
    })
    .await;
}

#[tokio::test]
async fn a_rekey_that_another_one_took_over_says_that_it_had_begun() {
    on_sqlite(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        fixture.clients_with_secrets(2).await;
        let other = "CREATE TRIGGER other AFTER UPDATE ON client_credentials \
                     BEGIN UPDATE rekey_lease SET holder = zeroblob(16); END";
        run(&db, other).await;
        let refused = fixture.rekey("two.key").await.unwrap_err();
        assert!(matches!(refused, RekeyError::Overtaken), "{refused}");
        assert!(!refused.to_string().contains("Nothing was changed"), "{refused}");
        let moved = fixture.log().await.iter().filter(|entry| entry.action == Action::SecretRekeyed).count();
        assert_eq!((moved, fixture.living().await.len()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn a_board_that_cant_reach_the_new_provider_says_so_and_writes_nothing_under_the_old() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let clients = fixture.clients_with_secrets(1).await;
        let new = begin(&fixture, "two.key").await;
        let hide = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
        let (key, away) = (fixture.keys.path().join("two.key"), fixture.keys.path().join("away"));
        hide(&key, &away);
        let refused = fixture.store(clients[0], "ours-new-value").await.unwrap_err();
        let SecretError::Key(KeyError::Unusable { version: 2, fingerprint, .. }) = &refused else {
            panic!("{refused}")
        };
        assert_eq!(*fingerprint, new.fingerprint());
        assert!(fixture.app.root.trouble().is_some_and(|trouble| trouble.contains("two.key")));
        assert_eq!(fixture.opened(clients[0]).await, format!("{VALUE}-0"), "what it can open it opens");
        hide(&away, &key);
        fixture.store(clients[0], "ours-new-value").await.unwrap();
        assert_eq!(fixture.app.root.trouble(), None);
    })
    .await;
}

#[tokio::test]
async fn the_boards_own_secrets_move_with_their_entry_and_open_after() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        fixture.clients_with_secrets(1).await;
        fixture.manage().await;
        assert_eq!(fixture.managed().await, MANAGEMENT);
        let done = fixture.rekey("two.key").await.unwrap();
        assert!(matches!(done, Rekeyed::Done { old: 1, new: 2, moved: 2, .. }), "{done:?}");
        let mut tx = fixture.app.db.read().await.unwrap();
        let kept = secrets::stored_board(&mut tx, BOARDS).await.unwrap().unwrap();
        assert_eq!(kept.version, 1, "the same value and version");
        assert!(secrets::unmoved_board(&mut tx, 2).await.unwrap().is_empty());
        assert_eq!(secrets::unmoved_board(&mut tx, 1).await.unwrap(), [BOARDS]);
        drop(tx);
        assert_eq!(fixture.managed().await, MANAGEMENT);
        let log = fixture.log().await;
        let moved: Vec<_> = log.iter().filter(|entry| entry.action == Action::BoardSecretRekeyed).collect();
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].detail["from"].as_str(), moved[0].detail["to"].as_str()), ("1", "2"));
        let started = log.iter().find(|entry| entry.action == Action::RekeyStarted).unwrap();
        assert_eq!(started.detail["rows"], "2");

        let (app, to) = (&fixture.app, "three.key");
        assert!(secrets::remove_board(&app.db, &*app.clock, Fixture::who(), BOARDS).await.unwrap());
        let done = fixture.rekey(to).await.unwrap();
        assert!(matches!(done, Rekeyed::Done { moved: 1, .. }), "a removed one isn't missed: {done:?}");
        fixture.manage().await;
        assert_eq!(fixture.managed().await, MANAGEMENT);
    })
    .await;
}

/// Killed before the first row, between a client's and the board's, between the board's and a client's, and before the end.
#[tokio::test]
async fn a_rekey_that_was_killed_ends_with_the_boards_own_secrets_too() {
    for (boards, clients) in [(false, false), (false, true), (true, false), (true, true)] {
        on_both(move |db| async move {
            let fixture = Fixture::new(db).await;
            let client = fixture.clients_with_secrets(1).await[0];
            fixture.manage().await;
            begin(&fixture, "two.key").await;
            let (app, now, random) = (&fixture.app, fixture.app.now(), &SystemRandom);
            let mut tx = app.db.write().await.unwrap();
            app.root.look(&mut tx).await.unwrap();
            let newest = app.root.newest();
            assert_eq!(newest.version, 2);
            if boards {
                let moved = secrets::move_board_to(&mut tx, &app.root, &newest, BOARDS, now, random).await;
                assert_eq!(moved.unwrap(), Moved::Moved);
                tx.commit().await.unwrap();
                tx = app.db.write().await.unwrap();
                let again = secrets::move_board_to(&mut tx, &app.root, &newest, BOARDS, now, random).await;
                assert_eq!(again.unwrap(), Moved::Nothing);
            }
            if clients {
                let place = secrets::unmoved(&mut tx, 2).await.unwrap()[0];
                secrets::move_to(&mut tx, &app.root, &newest, place, now, random).await.unwrap();
            }
            tx.commit().await.unwrap();
            assert_eq!(fixture.managed().await, MANAGEMENT, "it opens while both versions live");
            let refused = fixture.rekey("three.key").await.unwrap_err();
            assert!(matches!(refused, RekeyError::Unfinished(_)), "{refused}");
            let done = fixture.rekey("two.key").await.unwrap();
            let left = 2 - u64::from(boards) - u64::from(clients);
            assert!(matches!(done, Rekeyed::Done { new: 2, moved, .. } if moved == left), "{done:?}");
            assert_eq!(fixture.managed().await, MANAGEMENT);
            assert_eq!(fixture.opened(client).await, format!("{VALUE}-0"));
            let rekeyed = |entry: &&audit::Entry| entry.action == Action::BoardSecretRekeyed;
            assert_eq!(fixture.log().await.iter().filter(rekeyed).count(), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_management_key_that_does_not_open_is_named_and_moves_once_it_is_stored_again() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        fixture.manage().await;
        let broken = match &db {
            Db::Sqlite(_) => "zeroblob(60)",
            Db::Postgres(_) => "decode(repeat('00', 60), 'hex')",
        };
        run(&db, &format!("UPDATE board_secrets SET encrypted_value = {broken}")).await;
        let refused = fixture.rekey("two.key").await.unwrap_err();
        let RekeyError::Unmovable { count: 1, named } = &refused else { panic!("{refused}") };
        assert!(named[0].contains("openrouter-management-key"), "{refused}");
        assert!(refused.to_string().contains("Providers page"), "{refused}");
        assert_eq!(fixture.living().await.len(), 2, "the old root key stays");
        fixture.manage().await;
        assert!(matches!(fixture.rekey("two.key").await.unwrap(), Rekeyed::Done { moved: 0, .. }));
        assert_eq!(fixture.managed().await, MANAGEMENT);
    })
    .await;
}
