mod runbooks;
pub(crate) mod stand_in;

use std::time::Duration;

use axum::http::Method;
use shared::ids::{ClientId, DeviceId};
use shared::secret::Secret;

use super::make::{Maker, held, job};
use super::openrouter::KeyApi;
use super::work::work;
use super::*;
use crate::audit::{self, Action};
use crate::catalog::{self, AnySlot, OurSlot};
use crate::db::Db;
use crate::db::testing::on_both;
use crate::enrollment;
use crate::runbook::{self, Step, StepState};
use crate::secrets::{CopyError, DeliveryState, StoredBoardSecret};
use crate::testing::{Fixture, MANIFESTS};
use stand_in::{Fault, Key, StandIn};

pub(crate) const MANAGEMENT: &str = "sk-or-v1-management-canary-0123456789abcdef";
pub(crate) const MANIFEST: &str = include_str!("../../catalog/components/openrouter.toml");

pub(crate) struct Desk {
    pub fixture: Fixture,
    pub provider: StandIn,
    pub client: ClientId,
    pub device: DeviceId,
    name: String,
}

/// One look of the task that makes keys.
pub(crate) async fn look(app: &App) {
    work(app).await.unwrap();
}

impl Desk {
    /// A client with OpenRouter in its scope, an enrolled device, and no management key.
    pub async fn new(db: Db) -> Self {
        let provider = StandIn::start(MANAGEMENT).await;
        let fixture = Fixture::with_providers(db, provider.address).await;
        let mut manifests = MANIFESTS.to_vec();
        manifests.push(("openrouter", MANIFEST));
        fixture.import(2, &manifests).await.unwrap();
        let client = fixture.client("Example Client", &["openrouter"]).await;
        let device = Self::device(&fixture, client, "A-UUID").await;
        let name = key_name(&fixture.app, client);
        Self { fixture, provider, client, device, name }
    }

    async fn managed(db: Db) -> Self {
        let desk = Self::new(db).await;
        desk.manage(MANAGEMENT).await;
        desk
    }

    async fn device(fixture: &Fixture, client: ClientId, hardware: &str) -> DeviceId {
        let (_, id) = fixture.enrolled(client, hardware).await;
        let mut tx = fixture.app.db.write().await.unwrap();
        let device = enrollment::get_device(&mut tx, id).await.unwrap();
        runbook::ensure(&fixture.app, &mut tx, &device).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn manage(&self, key: &str) {
        let app = &self.fixture.app;
        let value = Secret::new(key.to_owned());
        let made_of = (&*app.clock, &*app.random);
        let which = BoardSecret::OpenRouterManagement;
        secrets::put_board(&app.db, &app.root, made_of, Fixture::who(), which, &value).await.unwrap();
    }

    pub async fn work(&self) {
        look(&self.fixture.app).await;
    }

    async fn step_of(&self, device: DeviceId) -> Step {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let made = runbook::of_device(&mut tx, device).await.unwrap().unwrap();
        runbook::steps(&mut tx, made.id)
            .await
            .unwrap()
            .into_iter()
            .find(|step| step.step_key == "key")
            .unwrap()
    }

    async fn step(&self) -> Step {
        self.step_of(self.device).await
    }

    pub async fn key(&self) -> ClientKey {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        key(&mut tx, self.client).await.unwrap().unwrap()
    }

    pub async fn slot(&self) -> OurSlot {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        match catalog::slot(&mut tx, COMPONENT, SLOT).await.unwrap().unwrap() {
            AnySlot::Ours(slot) => slot,
            AnySlot::Theirs(_) => panic!("the slot is ours"),
        }
    }

    /// What the board holds for the client.
    async fn value(&self) -> Option<String> {
        let fixture = &self.fixture;
        let slot = self.slot().await.id;
        match secrets::copy(&fixture.app, Fixture::who(), fixture.user, self.client, slot, "a test").await {
            Ok(value) => Some(String::from_utf8(value.expose().clone()).unwrap()),
            Err(CopyError::Empty) => None,
            Err(error) => panic!("{error}"),
        }
    }

    async fn actions(&self, action: Action) -> usize {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let all = audit::page(&mut tx, None, 10_000).await.unwrap();
        all.iter().filter(|stored| stored.entry.action == action).count()
    }

    /// One key works, and the board holds its value.
    async fn holds_the_one_that_works(&self, place: &str) {
        let working = self.provider.working(&self.name);
        assert_eq!(working.len(), 1, "{place}: {working:?}");
        assert_eq!(self.value().await.as_ref(), Some(&working[0].value), "{place}");
        let key = self.key().await;
        assert_eq!((key.state, key.hash.as_ref()), (KeyState::Stored, Some(&working[0].hash)), "{place}");
        assert_eq!(self.step().await.state, StepState::Succeeded, "{place}");
    }

    async fn retry(&self) {
        let app = &self.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let device = enrollment::get_device(&mut tx, self.device).await.unwrap();
        drop(tx);
        runbook::retry(app, Fixture::who(), &device, self.step().await.id).await.unwrap();
    }

    /// The hourly reading, with what the client used this month in dollars.
    pub async fn read(&self, usage: f64) {
        self.provider.inside().keys[0].usage_monthly = usage;
        self.fixture.clock.advance(Duration::from_secs(3600));
        read::due(&self.fixture.app).await.unwrap();
    }

    async fn api(&self) -> KeyApi {
        api(&self.fixture.app, job(), "a test").await.unwrap()
    }
}

#[tokio::test]
async fn a_clients_key_is_made_with_its_limit_and_is_on_its_way_to_the_device() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        desk.work().await;
        let step = desk.step().await;
        assert_eq!(step.state, StepState::Waiting, "by hand, without a management key");
        assert!(step.waits_for.unwrap().contains("secrets page"));
        let app = &desk.fixture.app;
        set_limit(app, Fixture::who(), desk.client, 12_500_000).await.unwrap();
        desk.manage(MANAGEMENT).await;
        desk.work().await;
        desk.holds_the_one_that_works("made").await;
        assert_eq!(desk.provider.working(&desk.name)[0].limit, 12.5);
        let mut tx = app.db.read().await.unwrap();
        let delivery = secrets::for_device(&mut tx, desk.device).await.unwrap().remove(0);
        assert_eq!((delivery.state, delivery.version), (DeliveryState::Pending, 1));
        let device = enrollment::get_device(&mut tx, desk.device).await.unwrap();
        drop(tx);
        let offer = runbook::next_offer(app, &device, &runbook::Carried::default()).await.unwrap();
        assert_eq!(offer, None, "the board's own step is offered to no device");

        let asked = desk.provider.inside().asked.len();
        desk.work().await;
        let second = Desk::device(&desk.fixture, desk.client, "B-UUID").await;
        desk.work().await;
        assert_eq!(desk.step_of(second).await.state, StepState::Succeeded, "the client has its key already");
        assert_eq!(desk.provider.inside().asked.len(), asked, "nothing is asked again");
        assert_eq!(desk.actions(Action::ProviderKeyMade).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_value_entered_by_hand_finishes_the_step() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        desk.work().await;
        let client = desk.fixture.get_client(desk.client).await;
        let value = Secret::new("sk-or-v1-typed-by-a-consultant".to_owned());
        secrets::put(&desk.fixture.app, Fixture::who(), &client, &desk.slot().await, &value).await.unwrap();
        desk.work().await;
        assert_eq!(desk.step().await.state, StepState::Succeeded);
        assert!(desk.provider.inside().asked.is_empty());
    })
    .await;
}

#[tokio::test]
async fn whatever_the_provider_does_one_key_works_in_the_end_and_the_board_holds_it() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        let table: &[&[(&Method, Fault)]] = &[
            &[(&post, Fault::Busy(Some(1)))],
            &[(&get, Fault::Busy(None)), (&post, Fault::Busy(None))],
            &[(&get, Fault::Status(500)), (&post, Fault::Status(503))],
            &[(&post, Fault::Lost)],
            &[(&post, Fault::Slow)],
            &[(&post, Fault::Lost), (&post, Fault::Lost), (&delete, Fault::Status(502))],
        ];
        for (round, faults) in table.iter().enumerate() {
            let place = format!("{faults:?}");
            for (method, fault) in *faults {
                desk.provider.fault((*method).clone(), *fault);
            }
            if round > 0 {
                delete_again(&desk).await;
            }
            desk.work().await;
            desk.holds_the_one_that_works(&place).await;
            assert!(desk.provider.inside().faults.is_empty(), "{place}");
        }
        assert_eq!(
            desk.actions(Action::ProviderKeyOrphaned).await,
            5,
            "each one that was lost, and one twice"
        );
    })
    .await;
}

/// The client's key is deleted, and another one is to be made.
async fn delete_again(desk: &Desk) {
    let app = &desk.fixture.app;
    let faults = std::mem::take(&mut desk.provider.inside().faults);
    delete(app, Fixture::who(), desk.client).await.unwrap();
    desk.provider.inside().faults = faults;
    make_again(app, Fixture::who(), desk.client).await.unwrap();
}

#[tokio::test]
async fn what_does_not_pass_fails_the_step_with_what_to_do() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        desk.manage("sk-or-v1-another-management-key-0123456789").await;
        desk.work().await;
        let step = desk.step().await;
        assert_eq!(step.state, StepState::Failed);
        assert!(step.found.as_ref().unwrap().contains("refuses the board's management key"), "{step:?}");
        assert_eq!(desk.provider.inside().asked.len(), 1, "a refusal is not tried again");

        desk.manage(MANAGEMENT).await;
        for (fault, times, words) in [
            (Fault::Status(500), 4, "trouble of its own"),
            (Fault::Busy(Some(3600)), 1, "try again in 3600 seconds"),
            (Fault::Status(400), 1, "status 400"),
            (Fault::Garbled, 1, "can't be understood"),
        ] {
            for _ in 0..times {
                desk.provider.fault(Method::POST, fault);
            }
            desk.retry().await;
            desk.work().await;
            let step = desk.step().await;
            assert!(
                step.state == StepState::Failed && step.found.as_ref().unwrap().contains(words),
                "{step:?}"
            );
            assert!(desk.provider.inside().faults.is_empty(), "{fault:?}: all tries were used, no more");
        }
        desk.retry().await;
        desk.work().await;
        desk.holds_the_one_that_works("in the end").await;
    })
    .await;
}

#[tokio::test]
async fn killed_at_any_point_it_goes_on_and_leaves_no_orphan() {
    for point in 0..6 {
        on_both(move |db| async move {
            let place = format!("killed at point {point}");
            let desk = Desk::managed(db).await;
            let app = &desk.fixture.app;
            let mut tx = app.db.write().await.unwrap();
            runbook::wake_waiting(app, &mut tx, desk.device).await.unwrap();
            let step = runbook::boards_steps(&mut tx).await.unwrap().remove(0);
            assert!(runbook::begin_boards(app, &mut tx, &step).await.unwrap());
            store::plan(&mut tx, desk.client, DEFAULT_LIMIT_MICROS, app.now()).await.unwrap();
            tx.commit().await.unwrap();
            let api = desk.api().await;
            let slot = desk.slot().await;
            if point > 0 {
                let maker = Maker::claim(app, desk.client).await.unwrap().unwrap();
                match point {
                    1 => {}
                    2 => {
                        desk.provider.fault(Method::POST, Fault::Status(500));
                        assert!(maker.ask(&api).await.is_err());
                    }
                    3 => {
                        desk.provider.fault(Method::POST, Fault::Lost);
                        assert!(maker.ask(&api).await.is_err());
                    }
                    4 => drop(maker.ask(&api).await.unwrap()),
                    _ => maker.keep(&slot, &maker.ask(&api).await.unwrap()).await.unwrap(),
                }
                let state = desk.key().await.state;
                let expected =
                    [KeyState::Planned, KeyState::Asked, KeyState::Asked, KeyState::Made, KeyState::Stored];
                assert_eq!(state, expected[point - 1], "{place}");
                if point < 5 {
                    let asked = desk.provider.inside().asked.len();
                    desk.work().await;
                    assert_eq!(desk.provider.inside().asked.len(), asked, "{place}: it is held");
                }
                desk.fixture.clock.advance(held(app));
            }
            desk.work().await;
            desk.holds_the_one_that_works(&place).await;
        })
        .await;
    }
}

#[tokio::test]
async fn of_replicas_at_once_one_acts() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        let (a, b, c, d) = tokio::join!(work(app), work(app), work(app), work(app));
        for done in [a, b, c, d] {
            done.unwrap();
        }
        desk.work().await;
        desk.holds_the_one_that_works("four at once").await;
        assert_eq!(desk.provider.asked(&Method::POST), 1);
    })
    .await;
}

#[tokio::test]
async fn who_lost_the_hold_deletes_what_it_made() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        store::plan(&mut tx, desk.client, DEFAULT_LIMIT_MICROS, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let slow = Maker::claim(app, desk.client).await.unwrap().unwrap();
        let made = slow.ask(&desk.api().await).await.unwrap();
        desk.fixture.clock.advance(held(app));
        desk.work().await;
        desk.holds_the_one_that_works("taken over").await;
        assert!(matches!(slow.keep(&desk.slot().await, &made).await, Err(ProviderError::Lost)));
        assert!(matches!(slow.hold().await, Err(ProviderError::Lost)));
        desk.holds_the_one_that_works("the slow one changed nothing").await;
    })
    .await;
}

#[tokio::test]
async fn each_hour_the_numbers_are_read_and_orphans_go() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        desk.work().await;
        let ours = desk.provider.working(&desk.name).remove(0);
        {
            let mut inside = desk.provider.inside();
            let other = |name: String, at: usize| Key { name, hash: format!("other-{at}"), ..ours.clone() };
            let many = (0..250).map(|at| other(format!("somebody else's {at}"), at));
            let mut keys: Vec<Key> = many.collect();
            keys.push(other(desk.name.clone(), 250));
            keys.append(&mut inside.keys);
            let last = keys.last_mut().unwrap();
            (last.usage_monthly, last.expires_at) = (12.4, Some("2027-12-31T23:59:59Z".into()));
            inside.keys = keys;
        }
        let asked = desk.provider.asked(&Method::GET);
        read::due(app).await.unwrap();
        assert_eq!(desk.provider.asked(&Method::GET) - asked, 4, "three pages, and the empty one");
        let key = desk.key().await;
        assert_eq!((key.usage_micros, key.read_at), (Some(12_400_000), Some(app.now())));
        assert!(key.expires_at.is_some());
        desk.holds_the_one_that_works("the orphan is gone").await;
        assert_eq!(desk.provider.inside().keys.len(), 251, "nobody else's key was touched");

        desk.fixture.clock.advance(Duration::from_secs(3599));
        let asked = desk.provider.inside().asked.len();
        read::due(app).await.unwrap();
        assert_eq!(desk.provider.inside().asked.len(), asked, "not before the hour");
        desk.fixture.clock.advance(Duration::from_secs(1));
        desk.provider.inside().keys.clear();
        read::due(app).await.unwrap();
        assert!(desk.key().await.trouble.unwrap().contains("deleted it there"));
        desk.fixture.clock.advance(Duration::from_secs(3600));
        desk.manage("sk-or-v1-another-management-key-0123456789").await;
        assert!(read::due(app).await.is_err());
        let mut tx = app.db.read().await.unwrap();
        assert!(reading_trouble(&mut tx).await.unwrap().unwrap().contains("management key"));
    })
    .await;
}

#[tokio::test]
async fn a_consultant_changes_disables_deletes_and_makes_another() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let (app, who, client) = (&desk.fixture.app, Fixture::who, desk.client);
        assert!(matches!(delete(app, who(), client).await, Err(ProviderError::NoKey)));
        assert!(!disable_for(app, who(), client).await.unwrap());
        desk.work().await;
        set_limit(app, who(), client, 20 * DOLLAR).await.unwrap();
        assert_eq!(desk.provider.working(&desk.name)[0].limit, 20.0);
        set_disabled(app, who(), client, true).await.unwrap();
        assert!(desk.provider.working(&desk.name).is_empty() && desk.key().await.disabled);
        set_disabled(app, who(), client, false).await.unwrap();
        desk.holds_the_one_that_works("enabled").await;
        for _ in 0..2 {
            assert!(disable_for(app, who(), client).await.unwrap());
            assert!(desk.provider.working(&desk.name).is_empty());
        }
        delete(app, who(), client).await.unwrap();
        assert!(desk.provider.inside().keys.is_empty());
        assert_eq!(desk.key().await.state, KeyState::Deleted);
        make_again(app, who(), client).await.unwrap();
        desk.work().await;
        desk.holds_the_one_that_works("another one").await;
        assert_eq!(desk.provider.working(&desk.name)[0].limit, 20.0, "the client keeps its limit");
        assert!(matches!(make_again(app, who(), client).await, Err(ProviderError::Lost)));

        desk.provider.fault(Method::PATCH, Fault::Status(401));
        let refused = set_limit(app, who(), client, DOLLAR).await.unwrap_err();
        assert!(refused.to_string().contains("management key"), "{refused}");
        assert_eq!(desk.key().await.limit_micros, 20 * DOLLAR, "the row says what OpenRouter has");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_an_engagement_and_an_incident_disable_keys_and_try_again_later() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        desk.work().await;
        let mut ending = ending::Ending::default();
        ending.look(app).await.unwrap();
        desk.holds_the_one_that_works("nothing ended").await;

        crate::freeze::begin(app, Fixture::who(), "a test").await.unwrap();
        desk.provider.fault(Method::PATCH, Fault::Status(401));
        ending.look(app).await.unwrap();
        let before = desk.actions(Action::ProviderKeyChanged).await;
        ending.look(app).await.unwrap();
        assert_eq!(desk.actions(Action::ProviderKeyChanged).await, before, "not each time somebody looks");
        assert_eq!(desk.provider.working(&desk.name).len(), 1);
        desk.fixture.clock.advance(std::time::Duration::from_secs(601));
        ending.look(app).await.unwrap();
        assert!(desk.provider.working(&desk.name).is_empty() && desk.key().await.disabled);
        let enabled = set_disabled(app, Fixture::who(), desk.client, false).await;
        assert!(matches!(enabled, Err(ProviderError::Secret(SecretError::Frozen))), "{enabled:?}");
        assert!(desk.provider.working(&desk.name).is_empty());

        crate::freeze::lift(app, Fixture::who(), "a test").await.unwrap();
        set_disabled(app, Fixture::who(), desk.client, false).await.unwrap();
        desk.holds_the_one_that_works("enabled").await;
        let mut tx = app.db.write().await.unwrap();
        let now = app.now();
        crate::clients::engagement::end(&mut tx, desk.client, "consultant@example.com", now, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        ending.look(app).await.unwrap();
        assert!(desk.provider.working(&desk.name).is_empty(), "its engagement ended");
    })
    .await;
}

#[tokio::test]
async fn what_is_being_made_when_the_engagement_ends_does_not_come() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        store::plan(&mut tx, desk.client, DEFAULT_LIMIT_MICROS, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let maker = Maker::claim(app, desk.client).await.unwrap().unwrap();
        let made = maker.ask(&desk.api().await).await.unwrap();
        disable_for(app, Fixture::who(), desk.client).await.unwrap();
        assert!(desk.provider.inside().keys.is_empty());
        assert!(matches!(maker.keep(&desk.slot().await, &made).await, Err(ProviderError::Lost)));
        assert_eq!(desk.value().await, None);
    })
    .await;
}

#[tokio::test]
async fn the_management_key_is_put_replaced_removed_and_opened_with_an_entry_before() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let app = &desk.fixture.app;
        let which = BoardSecret::OpenRouterManagement;
        let open = || secrets::open_board(app, job(), which, "a test");
        assert_eq!(open().await.unwrap().unwrap().expose(), MANAGEMENT);
        assert_eq!(desk.actions(Action::BoardSecretDecrypted).await, 1);
        let short = Secret::new("sk-or-short".to_owned());
        let made_of = (&*app.clock, &*app.random);
        let refused = secrets::put_board(&app.db, &app.root, made_of, Fixture::who(), which, &short).await;
        assert!(matches!(refused, Err(SecretError::Form)));

        let mut tx = app.db.write().await.unwrap();
        crate::on!(&mut tx, conn => sqlx::query("UPDATE board_secrets SET version = 2").execute(conn).await.map(|_| ()))
            .unwrap();
        tx.commit().await.unwrap();
        assert!(open().await.is_err(), "an envelope of another version doesn't open");
        desk.manage(MANAGEMENT).await;
        assert!(open().await.is_ok());
        assert!(secrets::remove_board(&app.db, &*app.clock, Fixture::who(), which).await.unwrap());
        assert!(!secrets::remove_board(&app.db, &*app.clock, Fixture::who(), which).await.unwrap());
        let before = desk.actions(Action::BoardSecretDecrypted).await;
        assert!(open().await.unwrap().is_none());
        assert_eq!(desk.actions(Action::BoardSecretDecrypted).await, before, "nothing was opened");
        desk.manage(MANAGEMENT).await;
        let mut tx = app.db.read().await.unwrap();
        let stored = secrets::stored_board(&mut tx, which).await.unwrap();
        assert_eq!(stored, Some(StoredBoardSecret { version: 4, changed_at: app.now() }));
    })
    .await;
}

#[test]
fn money_and_limits_are_read_and_written_alike() {
    for (text, micros) in
        [("50", 50_000_000), ("$49.90", 49_900_000), (" 0.5 ", 500_000), ("100000", 100_000_000_000)]
    {
        assert_eq!(parse_limit(text).unwrap(), micros, "{text}");
    }
    for text in ["", "0", "0.00", "-1", "1e3", "50,00", "1.234", "100000.01", "fifty", ".5", "5."] {
        assert!(parse_limit(text).is_err(), "{text}");
    }
    assert_eq!(
        (money(12_400_000), money(4_999), money(5_000)),
        ("$12.40".into(), "$0.00".into(), "$0.01".into())
    );
}
