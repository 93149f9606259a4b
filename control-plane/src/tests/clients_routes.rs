//! The list of clients: in pages, and searched by name.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use regex::Regex;

use super::{ask, signed_in};
use crate::access::Role;
use crate::clients::{self, NewClient};
use crate::db::testing::on_both;
use crate::testing::Fixture;

const OURS: &str = "http://board.test";

async fn client_called(fixture: &Fixture, name: String) {
    let form = NewClient { name, vault_name: "Vault".into(), ..NewClient::default() };
    clients::create(&fixture.app, Fixture::who(), fixture.user, &form).await.unwrap();
}

#[tokio::test]
async fn clients_come_in_pages_and_a_search_stays_in_the_address() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        for number in 0..119 {
            client_called(&fixture, format!("Example Client {number:03}")).await;
        }
        client_called(&fixture, "Übung & Söhne".to_owned()).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let get = async |path: &str| {
            let answer = ask(&fixture, Method::GET, path, Some(&cookie), OURS).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let row = Regex::new("<th scope=\"row\" class=\"name\"><a href=\"(/clients/[^\"]+)\">").unwrap();
        let rows = |page: &str| -> Vec<String> {
            row.captures_iter(page).map(|found| found[1].to_owned()).collect()
        };
        let link = |page: &str, rel: &str| {
            let link = Regex::new(&format!("rel=\"{rel}\" href=\"([^\"]+)\"")).unwrap();
            link.captures(page).map(|found| found[1].replace("&amp;", "&").replace("&#38;", "&"))
        };

        let mut seen = BTreeSet::new();
        let mut lengths = Vec::new();
        let mut next = Some("/clients".to_owned());
        while let Some(path) = next.take_if(|_| lengths.len() < 10) {
            let page = get(&path).await;
            lengths.push(rows(&page).len());
            seen.extend(rows(&page));
            next = link(&page, "next");
        }
        assert_eq!((lengths.as_slice(), seen.len()), ([25, 25, 25, 25, 20].as_slice(), 120));

        let second = get("/clients?q=CLIENT+example&page=2").await;
        assert!(second.contains("26 to 50 of 119") && second.contains("value=\"CLIENT example\""));
        assert_eq!(link(&second, "prev").as_deref(), Some("/clients?q=CLIENT+example&page=1"));
        assert_eq!(link(&second, "next").as_deref(), Some("/clients?q=CLIENT+example&page=3"));

        let found = get("/clients?q=%C3%BCBUNG+%26").await;
        assert_eq!(rows(&found).len(), 1, "case doesn't matter, nor beyond ASCII");
        assert_eq!(link(&found, "next"), None);
        assert!(get("/clients?q=nobody").await.contains("No client has this name"));
        assert!(get("/clients?page=99").await.contains("101 to 120 of 120"));
        for odd in ["0", "-1", "x", "", "99999999999999999999999"] {
            assert_eq!(rows(&get(&format!("/clients?page={odd}")).await).len(), 25, "{odd:?}");
        }
    })
    .await;
}
