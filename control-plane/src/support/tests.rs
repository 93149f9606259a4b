use std::collections::HashMap;
use std::time::Duration;

use shared::ids::ClientId;
use shared::protocol::inventory::{ComponentReport, Presence, SlotReport, SlotState};

use super::{Filter, Known};
use crate::clients::{self, NewClient, Scope};
use crate::db::testing::on_both;
use crate::inventory::{self, Drift};
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

        let shell = |now| Shell { viewer: None, section: Section::Support, pending: 0, now };
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
        let shell = Shell { viewer: None, section: Section::Support, pending: 0, now: fixture.app.now() };
        let html = known.page(&fixture.app, shell, Filter::default(), 1).render().unwrap();
        assert!(html.contains("No client yet"), "{html}");
    })
    .await;
}
