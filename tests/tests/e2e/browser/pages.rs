//! Which pages there are: every GET route of the console that isn't named here as something else. A page with a new kind of
//! id in its address needs one in [`Scene::path`](super::scene::Scene::path).

use regex::Regex;
use tests::demo::workspace;

/// GET routes that answer with no page of their own. Event streams and the API are told by their addresses.
const NOT_PAGES: &[&str] = &[
    "/",
    "/health",
    "/static/{name}",
    "/passkeys/{purpose}",
    "/support.csv",
    "/support.json",
    "/audit.csv",
    "/audit.jsonl",
    "/incident.csv",
];

#[derive(Clone, Debug)]
pub struct Page {
    pub route: String,
    /// Shown to whoever isn't signed in.
    pub public: bool,
}

pub fn pages() -> Vec<Page> {
    let mut pages = get_routes();
    pages.retain(|page| {
        let route = page.route.as_str();
        !NOT_PAGES.contains(&route) && !route.ends_with("/events") && !route.starts_with("/api/")
    });
    pages
}

fn get_routes() -> Vec<Page> {
    let router = std::fs::read_to_string(workspace().join("control-plane/src/router.rs")).unwrap();
    let console = router.split("pub fn console_routes").nth(1).expect("the console's routes stand there");
    let route = Regex::new(r#"\("(/[^"]*)",\s*(\w+)(?:\([^)]*\))?,\s*get\("#).unwrap();
    let found = route.captures_iter(console);
    found.map(|found| Page { route: found[1].to_owned(), public: &found[2] == "Public" }).collect()
}

#[test]
fn the_console_routes_are_understood() {
    let routes = get_routes();
    for one in NOT_PAGES {
        assert!(routes.iter().any(|page| page.route == *one), "{one} isn't a route: take it off the list");
    }
    let router = std::fs::read_to_string(workspace().join("control-plane/src/router.rs")).unwrap();
    let console = router.split("pub fn console_routes").nth(1).unwrap().split("\n}\n").next().unwrap();
    assert_eq!(routes.len(), console.matches(" get(").count(), "each GET route of the table was read");
    let pages = pages();
    assert!(pages.iter().any(|page| page.route == "/sign-in" && page.public), "{pages:?}");
    assert!(pages.iter().any(|page| page.route == "/devices/{id}/runbook" && !page.public), "{pages:?}");
}
