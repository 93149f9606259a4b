//! The page for the client: on paper it is one sheet, for a usual client with the catalog that we ship.

use std::path::PathBuf;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tests::consultant::Consultant;
use tests::demo::workspace;

use super::every_page::check;
use super::scene::sign_in;
use super::window::{Look, Window};
use crate::stage::{Database, Stage, served_with};

/// Millimetres; what a browser measures in CSS pixels and a printer in inches.
const SHEETS: [(&str, f64, f64); 2] = [("A4", 210.0, 297.0), ("Letter", 215.9, 279.4)];
const MM_PER_INCH: f64 = 25.4;
const MINE: &str = "canary-5c70aa-statement";

/// A client with an assistant, our skills and three integrations, on two Macs.
async fn usual() -> (Stage, String) {
    let catalog = workspace().join("control-plane/catalog");
    let (board, relay, folder) = served_with(Database::Sqlite, &catalog, Vec::new()).await;
    let consultant = Consultant::welcome(&board.console_url, &board.welcome).await.unwrap();
    let mut stage = Stage { board, consultant, relay, folder };
    let components = ["claude_auth", "openrouter", "mcp_skill_pack", "slack", "hubspot", "follow_up_boss"];
    let fields = [
        ("choice-claude_auth-auth", "ANTHROPIC_API_KEY"),
        ("param-slack-SLACK_TEAM_ID", "T0123456"),
        ("param-follow_up_boss-FUB_X_SYSTEM", "Example"),
    ];
    let client = stage.consultant.create_client("Example Client", &components, &fields).await.unwrap();
    let value = |slot: &str| match slot {
        "ANTHROPIC_API_KEY" => format!("sk-ant-api03-{MINE}"),
        "OPENROUTER_API_KEY" => format!("sk-or-{MINE}"),
        _ => MINE.to_owned(),
    };
    stage.consultant.enter_secrets(&client, value).await.unwrap();
    stage.consultant.copy_secret(&client, "The vendor wants it typed into a form").await.unwrap();
    for name in ["mac", "other"] {
        let agent = stage.agent(name);
        stage.enroll(&client, &agent).await;
    }
    (stage, client)
}

#[tokio::test]
async fn the_page_for_a_usual_client_is_one_sheet_of_paper_and_shows_no_value() {
    let (stage, client) = usual().await;
    let window = sign_in(&stage.board).await;
    window.go(&format!("/clients/{client}")).await;
    window.click("a[href$='/statement']").await;
    window.arrive("/statement").await;
    window.read(".sheet", "Taken out by a person: by").await;
    assert!(!window.source().await.contains(MINE), "a value stands on the page");
    let problems = check(&window, "statement-usual").await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));

    for scheme in [Look::Light, Look::Dark] {
        window.look(scheme).await;
        for (sheet, width, height) in SHEETS {
            let pdf = print(&window, width, height).await;
            keep(&format!("statement-{sheet}-{scheme:?}.pdf"), &pdf);
            assert_eq!(sheets(&pdf), 1, "{sheet}, {scheme:?}");
        }
    }
    on_paper(&window).await;
}

/// As the printer gets it, in a browser that looks dark too.
async fn on_paper(window: &Window) {
    let features = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
    window.devtools("Emulation.setEmulatedMedia", json!({ "media": "print", "features": features })).await;
    window.size(794, 1123).await;
    let shown = "const shown = (selector) => [...document.querySelectorAll(selector)].some((one) => one.checkVisibility());
        const look = (selector) => getComputedStyle(document.querySelector(selector));
        return [shown('.frame, .skip, .crumbs, .screen'), look('body').backgroundColor, look('.told p').color, look('.open').color]";
    let black = "rgb(0, 0, 0)";
    assert_eq!(window.eval(shown).await, json!([false, "rgb(255, 255, 255)", black, black]));
    let found = window.axe().await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    keep("statement-print.png", &BASE64.decode(window.screenshot().await.as_bytes()).unwrap());
}

async fn print(window: &Window, width: f64, height: f64) -> Vec<u8> {
    let paper = json!({
        "paperWidth": width / MM_PER_INCH,
        "paperHeight": height / MM_PER_INCH,
        "marginTop": 0, "marginBottom": 0, "marginLeft": 0, "marginRight": 0,
        "preferCSSPageSize": false,
        "printBackground": true,
    });
    let printed: Value = window.devtools("Page.printToPDF", paper).await;
    BASE64.decode(printed["data"].as_str().unwrap().as_bytes()).unwrap()
}

/// Pages of a PDF, by its page objects.
fn sheets(pdf: &[u8]) -> usize {
    let text = String::from_utf8_lossy(pdf);
    let page = regex::Regex::new(r"/Type\s*/Page[^s]").unwrap();
    page.find_iter(&text).count()
}

fn keep(name: &str, bytes: &[u8]) {
    if let Some(folder) = std::env::var_os("BOARD_SCREENSHOTS").map(PathBuf::from) {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
