//! What support gets: files with the right headers, no value of ours anywhere, and pages that cost the same number of
//! statements whatever the number of clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Method, StatusCode, header};
use regex::Regex;
use shared::secret::Secret;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::{ask, signed_in};
use crate::access::Role;
use crate::db::Db;
use crate::db::testing::on_both;
use crate::router;
use crate::secrets;
use crate::testing::Fixture;

const OURS: &str = "http://board.test";
const VALUE: &str = "ours-canary-7d1f09";

async fn text(response: axum::response::Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn support_gets_files_to_keep_and_no_value_of_ours_from_any_route() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["tool"]).await;
        let slot = fixture.our_slot().await;
        let value = Secret::new(VALUE.to_owned());
        let record = fixture.get_client(client).await;
        secrets::put(&fixture.app, Fixture::who(), &record, &slot, &value).await.unwrap();
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let get = async |path: &str| ask(&fixture, Method::GET, path, Some(&cookie), OURS).await;

        for (path, content_type, extension) in [
            ("/support.json", "application/json", "json"),
            ("/support.csv?drift=open", "text/csv; charset=utf-8", "csv"),
        ] {
            let answer = get(path).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type, "{path}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{path}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            let day = fixture.app.now().to_datetime().date();
            let name = format!("attachment; filename=\"installed-state-{day}.{extension}\"");
            assert_eq!(answer.headers()[header::CONTENT_DISPOSITION], name.as_str(), "{path}");
            assert!(text(answer).await.contains("tool"), "{path}");
        }

        let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
        let mut answered = 0;
        for (path, ..) in router::console_routes() {
            if path.ends_with("/events") || path == "/sign-out" {
                continue;
            }
            for id in [client.to_string(), device.to_string(), slot.id.to_string()] {
                let path = parameter.replace_all(path, id.as_str()).into_owned();
                let answer = get(&path).await;
                answered += usize::from(answer.status() == StatusCode::OK);
                assert!(!text(answer).await.contains(VALUE), "{path} holds a value of ours");
            }
        }
        assert!(answered > 15, "support was answered {answered} times");
    })
    .await;
}

/// Counts what sqlx says about the statements that it ran.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_clients() {
    on_both(|db| async move {
        // SQLite runs and logs its statements on a thread of its own, where this test can't listen.
        if matches!(db, Db::Sqlite(_)) {
            return;
        }
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        // With one subscriber alone, tracing asks the default of whichever thread comes to a statement first whether
        // anybody listens, and other tests' threads say no.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let counted = Statements::default();
        let listening = tracing::Dispatch::new(tracing_subscriber::registry().with(counted.clone()));
        let statements = async |path: &str| {
            let before = counted.0.load(Ordering::Relaxed);
            let guard = tracing::dispatcher::set_default(&listening);
            let answer = ask(&fixture, Method::GET, path, Some(&cookie), OURS).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            drop(guard);
            counted.0.load(Ordering::Relaxed) - before
        };
        let paths = ["/support", "/support.json", "/support.csv", "/api/v1/state"];
        let mut before = Vec::new();
        for number in 0..10 {
            let client = fixture.client(&format!("Client {number}"), &["base", "tool"]).await;
            fixture.enrolled(client, &format!("UUID-{number}")).await;
            if number == 0 {
                for path in paths {
                    before.push(statements(path).await);
                }
            }
        }
        for (path, before) in paths.into_iter().zip(before) {
            let after = statements(path).await;
            assert!(before > 0 && before < 30, "{path} takes {before} statements");
            assert_eq!(before, after, "{path} with ten clients instead of one");
        }
    })
    .await;
}
