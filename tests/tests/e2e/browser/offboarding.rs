//! The end of an engagement in the page: ended, held and reactivated with the mouse; each state keeps the rules of every
//! page.

use super::every_page::check;
use super::scene::sign_in;
use crate::stage::{Database, Stage};
use tests::consultant::PASSWORD;

#[tokio::test]
async fn an_engagement_is_ended_held_and_reactivated() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let agent = stage.agent("mac");
    stage.enroll(&client, &agent).await;
    let window = sign_in(&stage.board).await;
    let page = format!("/clients/{client}");
    window.go(&page).await;
    window.click("details.reject > summary").await;
    let mut problems = check(&window, "end-active").await;
    window.click("form[action$='/engagement/end'] button").await;
    if window.path().await.ends_with("/engagement/end") {
        window.fill("#step_up_password", PASSWORD).await;
        window.click("main button.primary").await;
    }
    window.read("#client", "Ended. The purge is to come.").await;
    window.read("#client", "wipe not confirmed").await;
    window.click("details.reject > summary").await;
    problems.extend(check(&window, "end-ending").await);
    window.fill("#hold-reason", "A dispute over the bill").await;
    window.click("form[action$='/engagement/hold'] button").await;
    window.read("#client", "A dispute over the bill").await;
    problems.extend(check(&window, "end-held").await);
    window.go("/clients").await;
    window.read("table", "ended").await;
    problems.extend(check(&window, "end-list").await);
    window.go(&page).await;
    window.click("details:has(form[action$='/engagement/reactivate']) > summary").await;
    window.click("form[action$='/engagement/reactivate'] button").await;
    window.read("#client", "Active. Its secrets are purged 30 days after it ends.").await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
