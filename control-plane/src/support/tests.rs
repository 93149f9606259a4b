use std::collections::HashMap;
use std::time::Duration;

use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{ComponentReport, Presence, SlotReport, SlotState};
use shared::random::SystemRandom;

use super::{Filter, Known};
use crate::clients::{self, NewClient, Scope};
use crate::db::testing::{on_both, on_sqlite};
use crate::enrollment::{self, Device};
use crate::inventory::{self, ClientFindings, DeviceFindings, Drift, Finding};
use crate::testing::Fixture;
use crate::web::{Section, Shell};

fn filter(pairs: &[(&str, &str)]) -> Filter {
    let query: HashMap<String, String> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Filter::read(&query).unwrap()
}

/// A client whose name no vault could have.
async fn client_called(fixture: &Fixture, name: &str, components: &[&str]) -> ClientId {
    let form = NewClient { name: name.into(), vault_name: "Vault".into(), ..NewClient::default() };
    let id = clients::create(&fixture.app, Fixture::who(), fixture.user, &form).await.unwrap();
    let components = components.iter().map(|key| (*key).to_owned()).collect();
    let scope = Scope { components, ..Scope::default() };
    clients::choose_scope(&fixture.app, Fixture::who(), id, &scope).await.unwrap();
    id
}

#[test]
fn a_value_that_a_filter_does_not_know_is_refused_with_those_it_knows() {
    let query = HashMap::from([("drift".to_owned(), "odd".to_owned())]);
    let refused = Filter::read(&query).unwrap_err().public;
    assert_eq!(refused.status, 422);
    assert!(refused.detail.contains("missing") && refused.detail.contains("differs"), "{}", refused.detail);
}

#[test]
fn a_filter_becomes_the_address_that_it_was_read_from() {
    let typed = [("q", "a&b =ü"), ("component", "tool"), ("drift", "differs"), ("age", "1d")];
    let query = filter(&typed).query();
    assert_eq!(query, "?q=a%26b+%3D%C3%BC&component=tool&drift=differs&age=1d");
    assert_eq!(Filter::default().query(), "");
}

#[tokio::test]
async fn the_matrix_the_files_and_the_filters_show_what_devices_said() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let name = "=cmd|' /C calc'!A0 <script>alert(1)</script>";
        let client = client_called(&fixture, name, &["base", "tool"]).await;
        fixture.client("Without a Mac", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let observed_at = fixture.app.now();
        let component = |key: &str, presence, version: &str| ComponentReport {
            component: key.to_owned(),
            presence,
            version: Some(version.to_owned()),
            evidence: Vec::new(),
            observed_at,
        };
        let slot = |key: &str, state| SlotReport {
            component: "tool".into(),
            slot: key.into(),
            state,
            version: None,
            observed_at,
            check: None,
        };
        let components =
            [component("base", Presence::Present, "@1.0"), component("tool", Presence::Present, "2.1.3")];
        let slots = [slot("OUR_KEY", SlotState::Rejected), slot("THEIR_TOKEN", SlotState::Present)];
        let app = &fixture.app;
        let mut tx = app.db.write().await.unwrap();
        inventory::apply(&mut tx, device, &components, &slots, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        fixture.clock.advance(Duration::from_secs(3 * 3600));

        let known = Known::load(app).await.unwrap();
        let drifts = |pairs: &[(&str, &str)]| -> Vec<(String, Drift)> {
            let state = known.json(app, &filter(pairs));
            state.answers.into_iter().map(|answer| (answer.component, answer.drift)).collect()
        };
        let (base, tool) = (("base".to_owned(), Drift::AsWanted), ("tool".to_owned(), Drift::SlotRejected));
        let never = ("base".to_owned(), Drift::NeverReported);
        assert_eq!(drifts(&[]), [base.clone(), tool.clone(), never.clone()]);
        assert_eq!(drifts(&[("drift", "differs")]), std::slice::from_ref(&tool));
        assert_eq!(drifts(&[("drift", "open")]), std::slice::from_ref(&never));
        assert_eq!(drifts(&[("q", "TOOL script")]), std::slice::from_ref(&tool));
        assert_eq!(drifts(&[("version", "2.1")]), std::slice::from_ref(&tool));
        assert_eq!(drifts(&[("client", &client.to_string())]), [base.clone(), tool.clone()]);
        assert_eq!(drifts(&[("age", "2h")]), [base.clone(), tool.clone()]);
        assert_eq!(drifts(&[("age", "1d")]), []);
        assert_eq!(drifts(&[("age", "off"), ("component", "Base")]), [base]);

        let csv = String::from_utf8(known.json(app, &Filter::default()).csv().unwrap()).unwrap();
        let mut read = csv::Reader::from_reader(csv.as_bytes());
        let records: Vec<csv::StringRecord> = read.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!((&records[0][0], &records[0][10]), (format!("'{name}").as_str(), "'@1.0"));
        assert_eq!(&records[1][13], "OUR_KEY slot rejected");

        let shell = |now| Shell {
            viewer: None,
            section: Section::Support,
            pending: 0,
            approvals: 0,
            frozen: false,
            now,
        };
        let page = |pairs: &[(&str, &str)]| {
            use askama::Template as _;
            known.page(app, shell(app.now()), filter(pairs), 1).render().unwrap()
        };
        let html = page(&[]);
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(html.contains("slot rejected") && html.contains("no device yet"), "{html}");
        let chips = known.page(app, shell(app.now()), Filter::default(), 1).chips;
        let counted: Vec<usize> = chips.iter().map(|chip| chip.devices).collect();
        assert_eq!(counted, [1, 1, 0, 0, 1], "a client without a device is no device");
        assert!(page(&[("q", "nothing like it")]).contains("Nothing matches"));
    })
    .await;
}

#[tokio::test]
async fn a_board_without_clients_says_what_to_do_first() {
    on_both(|db| async move {
        use askama::Template as _;
        let fixture = Fixture::new(db).await;
        let known = Known::load(&fixture.app).await.unwrap();
        let shell = Shell {
            viewer: None,
            section: Section::Support,
            pending: 0,
            approvals: 0,
            frozen: false,
            now: fixture.app.now(),
        };
        let html = known.page(&fixture.app, shell, Filter::default(), 1).render().unwrap();
        assert!(html.contains("No client yet"), "{html}");
    })
    .await;
}

/// As many clients with one device each, which has as many components, all with long names.
async fn many(fixture: &Fixture, clients: u16, components: usize) -> Known {
    let client = fixture.client("Example Client", &["base"]).await;
    let (_, id) = fixture.enrolled(client, &DeviceId::new(&*fixture.clock, &SystemRandom).to_string()).await;
    let mut tx = fixture.app.db.read().await.unwrap();
    let mut device =
        enrollment::devices_of(&mut tx, client).await.unwrap().into_iter().find(|one| one.id == id).unwrap();
    device.name = "A Mac mini with a rather long name ".repeat(3);
    let now = fixture.app.now();
    let finding = |number: usize| Finding {
        component: format!("component-with-quite-a-long-key-{number:03}"),
        drift: [Drift::AsWanted, Drift::SlotRejected, Drift::Unknown][number % 3],
        presence: Some(Presence::Present),
        version: Some("2026.11.25-a-version-that-is-very-long-too+build.123456".repeat(2)),
        observed_at: Some(now),
        slots: Vec::new(),
    };
    let findings: Vec<Finding> = (0..components).map(finding).collect();
    let device = || Device { id: DeviceId::new(&*fixture.clock, &SystemRandom), ..device.clone() };
    let one = |number: u16| ClientFindings {
        id: ClientId::new(&*fixture.clock, &SystemRandom),
        name: format!("{number:04} Client & Sons <with a long name> ").repeat(3),
        devices: vec![DeviceFindings { device: Some(device()), findings: findings.clone() }],
    };
    Known::new((1..=clients).map(one).collect(), None, now)
}

#[tokio::test]
async fn a_page_stays_light_however_much_there_is() {
    use askama::Template as _;
    on_sqlite(|db| async move {
        let fixture = Fixture::new(db).await;
        let now = fixture.app.now();
        let shell = || Shell {
            viewer: None,
            section: Section::Support,
            pending: 0,
            approvals: 0,
            frozen: false,
            now,
        };
        for (clients, components) in [(25, 14), (500, 20), (3, 60), (40, 150)] {
            let known = many(&fixture, clients, components).await;
            let html = known.page(&fixture.app, shell(), Filter::default(), 1).render().unwrap();
            assert!(html.len() < 80 * 1024, "{clients} × {components} weighs {} bytes", html.len());
            for state in ["done", "failed", "waiting"] {
                assert!(html.contains(&format!("<symbol id=\"g-{state}\"")), "{state}");
            }
        }
        let known = many(&fixture, 1, 41).await;
        let page = known.page(&fixture.app, shell(), Filter::default(), 1);
        assert_eq!((page.columns.len(), page.hidden.as_deref()), (40, Some("1 more component is")));
        let only = filter(&[("component", "component-with-quite-a-long-key-040")]);
        let page = known.page(&fixture.app, shell(), only, 1);
        assert_eq!((page.columns.len(), page.hidden), (1, None), "it is found by choosing it");

        let known = many(&fixture, 500, 20).await;
        let page = |number| known.page(&fixture.app, shell(), filter(&[("q", "client")]), number);
        let (first, second, last) = (page(1), page(2), page(usize::MAX));
        assert_eq!(first.found, "10000 components on 500 devices at 500 clients");
        assert_eq!((first.rows.len(), first.range.as_str()), (9, "Rows 1 to 9 of 500"));
        assert!(first.previous.is_none() && last.next.is_none());
        assert_eq!(first.next.as_deref(), Some("/support?q=client&page=2"));
        assert_eq!(second.range, "Rows 10 to 18 of 500");
        assert!(second.rows[0].client.starts_with("0010 "), "{}", second.rows[0].client);
        assert_eq!((last.rows.len(), last.range.as_str()), (5, "Rows 496 to 500 of 500"));
    })
    .await;
}
