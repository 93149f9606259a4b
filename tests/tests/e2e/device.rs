//! What a device knows about itself: `identity.json`, read and changed behind the agent's back.

use serde_json::Value;
use tests::agent::Agent;

use crate::stage::until;

/// A day as certificates' ends are kept, in microseconds.
pub const DAY_US: i64 = 24 * 3600 * 1_000_000;

pub fn identity(agent: &Agent) -> Value {
    serde_json::from_str(&std::fs::read_to_string(agent.data.join("identity.json")).unwrap()).unwrap()
}

pub fn write_identity(agent: &Agent, identity: &Value) {
    std::fs::write(agent.data.join("identity.json"), serde_json::to_vec(identity).unwrap()).unwrap();
}

/// The agent starts, believes that its certificate ends then, and gets another one. It goes on running.
///
/// The board believes its database: it gives another certificate only when the one that it knows ends soon as well, or when
/// that one is of an authority which is on its way out.
pub async fn starts_and_renews(agent: &mut Agent, not_after: i64) {
    let mut early = identity(agent);
    let before = early["certificate"].clone();
    early["not_after"] = not_after.into();
    write_identity(agent, &early);
    agent.start().unwrap();
    until("it renews", async || identity(agent)["certificate"] != before).await;
}

/// The agent starts, and its link comes up.
pub async fn links_again(agent: &mut Agent) {
    let log = agent.log().to_owned();
    let links = || std::fs::read_to_string(&log).unwrap().matches("the link is up").count();
    let before = links();
    agent.start().unwrap();
    until("the link comes up", async || links() > before).await;
}
