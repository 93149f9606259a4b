//! The page for the client, as it is sent: to every role the same, and without any value.

use axum::http::{Method, StatusCode};
use regex::Regex;
use shared::secret::Secret;

use super::{ask, read, signed_in};
use crate::access::Role;
use crate::clients::{self, NewClient, Scope};
use crate::db::testing::on_both;
use crate::secrets;
use crate::testing::Fixture;

const VALUE: &str = "ours-canary-9b27";
const REASON: &str = "It is <b>typed</b> by hand";

#[tokio::test]
async fn every_role_reads_the_same_page_and_no_value_stands_on_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let form = NewClient {
            name: "Example & <i>Client".into(),
            vault_name: "Vault".into(),
            ..NewClient::default()
        };
        let client = clients::create(&fixture.app, Fixture::who(), fixture.user, &form).await.unwrap();
        let scope = Scope { components: ["tool".to_owned()].into(), ..Scope::default() };
        clients::choose_scope(&fixture.app, Fixture::who(), client, &scope).await.unwrap();
        let (record, slot) = (fixture.get_client(client).await, fixture.our_slot().await);
        let value = Secret::new(VALUE.to_owned());
        secrets::put(&fixture.app, Fixture::who(), &record, &slot, &value).await.unwrap();
        fixture.enrolled(client, "A-UUID").await;
        secrets::copy(&fixture.app, Fixture::who(), fixture.user, client, slot.id, REASON).await.unwrap();
        let mut cookies = Vec::new();
        for role in [Role::Consultant, Role::Operator, Role::Support] {
            cookies.push((role, signed_in(&fixture, role).await));
        }
        let path = format!("/clients/{client}/statement");
        let mut sheets = Vec::new();
        let made = Regex::new("<bdi>[^<]+@example.com</bdi>, who made this page").unwrap();
        for (role, cookie) in &cookies {
            let answer = ask(&fixture, Method::GET, &path, Some(cookie), "http://board.test").await;
            let (parts, page) = read(answer).await;
            assert_eq!(parts.status, StatusCode::OK, "{role}: {page}");
            assert!(!page.contains("canary"), "{role}: {page}");
            for word in [
                "reception-mini",
                "kept locked on our board",
                "It is &#60;b&#62;typed",
                "Example &#38; &#60;i&#62;Client",
            ] {
                assert!(page.contains(word), "{role}, {word}: {page}");
            }
            let sheet = page.split_once("<article").unwrap().1.split_once("</article>").unwrap().0;
            assert!(
                !sheet.contains("<form") && !sheet.contains("<button") && !sheet.contains("href="),
                "{sheet}"
            );
            assert_eq!(made.find_iter(sheet).count(), 1, "{role}: {sheet}");
            sheets.push(made.replace(sheet, "").into_owned());
        }
        assert!(sheets.iter().all(|sheet| *sheet == sheets[0]), "{sheets:#?}");
        let stranger = ask(&fixture, Method::GET, &path, None, "http://board.test").await;
        assert_ne!(stranger.status(), StatusCode::OK);
        let client_page = format!("/clients/{client}");
        let answer = ask(&fixture, Method::GET, &client_page, Some(&cookies[2].1), "http://board.test").await;
        assert!(read(answer).await.1.contains(&format!("href=\"{path}\"")), "the client's page leads there");
    })
    .await;
}
