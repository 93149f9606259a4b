//! The end of an engagement, through the page.

use std::time::Duration;

use axum::http::{Method, StatusCode};

use super::{ask, post, read, signed_in};
use crate::access::Role;
use crate::audit::Who;
use crate::db::testing::on_both;
use crate::offboarding::purge_due;
use crate::testing::Fixture;

async fn page(fixture: &Fixture, cookie: &str, path: &str) -> String {
    let (parts, page) = read(ask(fixture, Method::GET, path, Some(cookie), "http://board.test").await).await;
    assert_eq!(parts.status, StatusCode::OK, "{page}");
    page
}

#[tokio::test]
async fn the_page_shows_each_state_of_an_engagement_and_what_can_be_done_about_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let id = fixture.client("Example Client", &["tool"]).await;
        fixture.client("Zebra Client", &["tool"]).await;
        fixture.enrolled(id, "A-UUID").await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let client = format!("/clients/{id}");
        let send = async |what: &str, fields: &[(&str, &str)]| {
            let path = format!("{client}/engagement/{what}");
            let (parts, page) = post(&fixture, &path, &cookie, fields).await;
            assert!(parts.status.is_redirection(), "{what}: {} {page}", parts.status);
        };
        let shown = page(&fixture, &cookie, &client).await;
        assert!(shown.contains("End the engagement with") && shown.contains("1 device stops"), "{shown}");
        let support = signed_in(&fixture, Role::Support).await;
        let seen = page(&fixture, &support, &client).await;
        assert!(seen.contains("The end of the engagement") && !seen.contains("/engagement/"), "{seen}");

        send("days", &[("days", "1")]).await;
        assert!(page(&fixture, &cookie, &client).await.contains("purged 1 day after"));
        send("end", &[("pasted", "also")]).await;
        let shown = page(&fixture, &cookie, &client).await;
        assert!(
            shown.contains("Ended. The purge is to come.") && shown.contains("wipe not confirmed"),
            "{shown}"
        );
        assert!(!shown.contains("/join-codes"), "an ended client gets no device: {shown}");
        send("hold", &[("reason", "A dispute over the bill")]).await;
        let shown = page(&fixture, &cookie, &client).await;
        assert!(shown.contains("A dispute over the bill") && shown.contains("Release the purge"), "{shown}");
        send("release", &[]).await;
        let clients = page(&fixture, &cookie, "/clients").await;
        assert!(clients.find("Zebra") < clients.find("Example Client"), "the ended come last: {clients}");

        fixture.clock.advance(Duration::from_secs(24 * 3600));
        purge_due(&fixture.app.db, &Who::job("purge"), fixture.app.now(), None).await.unwrap();
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let shown = page(&fixture, &cookie, &client).await;
        assert!(
            shown.contains("can be opened any more") && shown.contains("wipe never confirmed"),
            "{shown}"
        );
        assert!(shown.contains("Backups made before hold it"), "{shown}");
        let path = format!("{client}/engagement/reactivate");
        let (parts, _) = post::<&str, &str>(&fixture, &path, &cookie, &[]).await;
        assert!(parts.status.is_redirection());
        assert!(page(&fixture, &cookie, &client).await.contains("End the engagement with"));
    })
    .await;
}
