//! Who gets at what from outside: copying leaves a value nowhere, and a program's token opens the API only.

use tests::scan;

use crate::stage::{Database, Stage, VALUE};

#[tokio::test]
async fn a_copied_value_is_in_the_answer_and_in_no_file_or_page() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let refused = stage.consultant.copy_secret(&client, " ").await.unwrap();
    assert!(refused.status == 422 && refused.text.contains("Say why"), "{}", refused.text);
    let copied = stage.consultant.copy_secret(&client, "The vendor wants it typed").await.unwrap();
    assert_eq!((copied.status.as_u16(), copied.text.as_str()), (200, VALUE));
    let audit = stage.consultant.get("/audit.csv").await.unwrap();
    assert!(audit.contains("secret.copied") && audit.contains("The vendor wants it typed"), "{audit}");
    stage.board.stop().await.unwrap();
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let found = scan::files_with(stage.folder.path(), &[VALUE.as_bytes()]).unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert!(stage.consultant.pages.iter().all(|(_, text)| !text.contains(VALUE)));
}

#[tokio::test]
async fn a_program_reads_the_api_with_a_token_until_it_is_revoked() {
    let mut stage = Stage::new(Database::Postgres).await;
    let client = stage.client().await;
    let token = stage.board.make_token("monitoring", "support").await.unwrap();
    assert!(token.starts_with("board_"), "{token}");
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask =
        |path: String| http.get(format!("{}{path}", stage.board.console_url)).bearer_auth(&token).send();
    let state = ask(format!("/api/v1/clients/{client}/state")).await.unwrap();
    assert_eq!(state.status(), 200);
    assert!(state.text().await.unwrap().contains("Example Client"));
    let page = ask(format!("/clients/{client}")).await.unwrap();
    assert_eq!(page.status(), 401);
    assert_eq!(page.headers()["content-type"], "application/problem+json");
    stage.board.revoke_token("monitoring").await.unwrap();
    let over = ask(format!("/api/v1/clients/{client}/state")).await.unwrap();
    assert_eq!(over.status(), 401);
    assert!(over.text().await.unwrap().contains("was revoked"));
}
