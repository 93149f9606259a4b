//! The page between a changed scope and its saving, as a browser without scripts meets it.

use axum::http::{StatusCode, header};
use regex::Regex;
use shared::ids::ClientId;

use super::{post, signed_in};
use crate::access::Role;
use crate::clients::{self, Scope, choose_scope};
use crate::db::testing::on_both;
use crate::enrollment;
use crate::runbook;
use crate::testing::{Fixture, MANIFESTS, NOTED, TIERS};

type Fields = Vec<(String, String)>;

async fn running(db: crate::db::Db) -> (Fixture, String, ClientId) {
    let fixture = Fixture::new(db).await;
    let manifests = [MANIFESTS, &[NOTED]].concat();
    fixture.import_with_tiers(2, &manifests, TIERS).await.unwrap();
    let cookie = signed_in(&fixture, Role::Consultant).await;
    let client = fixture.client("Example Client", &["tool"]).await;
    let (_, device) = fixture.enrolled(client, "A-UUID").await;
    fixture.with_runbook(device).await;
    (fixture, cookie, client)
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#38;", "&")
}

/// The hidden fields of the page's form, and what its first button sends.
fn form(page: &str) -> (Fields, String) {
    let form = page.split("class=\"last decide\"").nth(1).expect("the page asks");
    let hidden = Regex::new("<input type=\"hidden\" name=\"([^\"]*)\" value=\"([^\"]*)\">").unwrap();
    let fields =
        hidden.captures_iter(form).map(|found| (unescaped(&found[1]), unescaped(&found[2]))).collect();
    let button = Regex::new("name=\"difference\" value=\"([^\"]+)\"").unwrap();
    (fields, button.captures(form).unwrap()[1].to_owned())
}

async fn saved(fixture: &Fixture, client: ClientId) -> Scope {
    let mut tx = fixture.app.db.read().await.unwrap();
    clients::scope(&mut tx, client).await.unwrap()
}

#[tokio::test]
async fn the_form_of_the_difference_says_the_same_again_and_saves_it() {
    on_both(|db| async move {
        let (fixture, cookie, client) = running(db).await;
        let path = format!("/clients/{client}/integrations");
        let text = "a \"name\" <script>alert('canary')</script> & מאפייה";
        let typed = fields(&[("component", "tool"), ("component", "noted"), ("param-noted-NAME", text)]);
        let (parts, page) = post(&fixture, &path, &cookie, &typed).await;
        assert_eq!(parts.status, StatusCode::OK, "{page}");
        assert!(!page.contains("<script>alert") && !page.contains("<b>what") && !page.contains("<i>&"));
        assert!(
            page.contains("1 step for the agent")
                && page.contains("Then the agent gets 1 step and begins when its device is on"),
            "{page}"
        );
        assert_eq!(saved(&fixture, client).await.components.len(), 2, "nothing is saved yet");

        let (hidden, basis) = form(&page);
        let mut sorted = (hidden.clone(), typed.clone());
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1);
        let back = [hidden.clone(), fields(&[("back", "yes")])].concat();
        let (parts, again) = post(&fixture, &path, &cookie, &back).await;
        assert_eq!(parts.status, StatusCode::OK);
        assert!(again.contains("data-wizard=\"integrations\"") && unescaped(&again).contains(text));
        assert!(Regex::new("id=\"c-noted\" checked").unwrap().is_match(&again), "what was ticked is kept");
        assert_eq!(saved(&fixture, client).await.components.len(), 2);

        let confirm = [hidden.clone(), fields(&[("difference", &basis)])].concat();
        let (parts, _) = post(&fixture, &path, &cookie, &confirm).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert_eq!(parts.headers[header::LOCATION], format!("/clients/{client}/secrets"));
        assert_eq!(saved(&fixture, client).await.param("noted", "NAME"), Some(text));
    })
    .await;
}

#[tokio::test]
async fn a_paused_runbook_is_said_to_wait_for_its_end() {
    on_both(|db| async move {
        let (fixture, cookie, client) = running(db).await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let device = enrollment::devices_of(&mut tx, client).await.unwrap().remove(0);
        drop(tx);
        runbook::pause(&fixture.app, Fixture::who(), &device, "The client is on a call").await.unwrap();
        let _on = fixture.app.links.open(device.id, fixture.app.now());
        let path = format!("/clients/{client}/integrations");
        let typed = [("component", "tool"), ("component", "noted"), ("param-noted-NAME", "Main Office")];
        let (_, page) = post(&fixture, &path, &cookie, &typed).await;
        assert!(
            page.contains("The runbook is paused: the agent begins when the runbook is resumed.")
                && page.contains("the agent gets 1 step and begins when the runbook is resumed"),
            "{page}"
        );
        assert!(!page.contains("as soon as you confirm") && !page.contains("at once"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn what_was_confirmed_too_late_is_shown_again_with_why() {
    on_both(|db| async move {
        let (fixture, cookie, client) = running(db).await;
        let path = format!("/clients/{client}/integrations");
        let (_, page) = post(&fixture, &path, &cookie, &[("component", "base")]).await;
        assert!(page.contains("2 steps are skipped"), "{page}");
        let (hidden, basis) = form(&page);
        let theirs = Scope {
            components: ["tool".to_owned(), "noted".to_owned()].into(),
            params: [(("noted".to_owned(), "NAME".to_owned()), "theirs".to_owned())].into(),
            ..Scope::default()
        };
        choose_scope(&fixture.app, Fixture::who(), client, &theirs).await.unwrap();
        let confirm = [hidden, fields(&[("difference", &basis)])].concat();
        let (parts, page) = post(&fixture, &path, &cookie, &confirm).await;
        assert_eq!(parts.status, StatusCode::CONFLICT);
        assert!(page.contains("Somebody else changed this client’s scope"), "{page}");
        assert_eq!(saved(&fixture, client).await.components.len(), 3, "theirs holds");
        let (hidden, basis) = form(&page);
        let confirm = [hidden, fields(&[("difference", &basis)])].concat();
        let (parts, _) = post(&fixture, &path, &cookie, &confirm).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert_eq!(saved(&fixture, client).await.components, ["base".to_owned()].into());
    })
    .await;
}

#[tokio::test]
async fn a_package_asks_too_and_one_that_leaves_inputs_open_goes_on_to_them() {
    on_both(|db| async move {
        let (fixture, cookie, client) = running(db).await;
        let path = format!("/clients/{client}/package");
        let (parts, page) = post(&fixture, &path, &cookie, &[("tier", "open")]).await;
        assert_eq!(parts.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("data-wizard=\"integrations\"") && page.contains("href=\"#param-noted-NAME\""));
        let carried = "<input type=\"hidden\" name=\"tier\" value=\"open\">";
        assert!(page.contains(carried), "the package goes along: {page}");
        let whole = [
            ("component", "base"),
            ("component", "noted"),
            ("param-noted-NAME", "Main Office"),
            ("with-package", "yes"),
            ("tier", "open"),
        ];
        let path = format!("/clients/{client}/integrations");
        let (_, page) = post(&fixture, &path, &cookie, &whole).await;
        let (hidden, basis) = form(&page);
        let confirm = [hidden, fields(&[("difference", &basis)])].concat();
        let (parts, _) = post(&fixture, &path, &cookie, &confirm).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        let mut tx = fixture.app.db.read().await.unwrap();
        let package = clients::package(&mut tx, client).await.unwrap();
        drop(tx);
        assert_eq!(package.tier.as_deref(), Some("open"));

        let path = format!("/clients/{client}/package");
        let (parts, page) = post(&fixture, &path, &cookie, &[("tier", "small")]).await;
        assert_eq!(parts.status, StatusCode::OK, "{page}");
        let (hidden, basis) = form(&page);
        let (_, again) =
            post(&fixture, &path, &cookie, &[hidden.clone(), fields(&[("back", "yes")])].concat()).await;
        assert!(again.contains("id=\"tier-small\" checked"), "{again}");
        let confirm = [hidden, fields(&[("difference", &basis)])].concat();
        let (parts, _) = post(&fixture, &path, &cookie, &confirm).await;
        assert_eq!(parts.headers[header::LOCATION], format!("/clients/{client}/integrations"));
        assert_eq!(saved(&fixture, client).await.components, ["base".to_owned()].into());
    })
    .await;
}
