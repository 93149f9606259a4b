//! From one certificate authority to the next, with a device that is on, one that was off, and one that joins meanwhile.

use serde_json::Value;
use tests::agent::Agent;

use crate::device::{DAY_US, identity, links_again, starts_and_renews};
use crate::stage::{Database, Stage, until};

async fn ca(stage: &Stage, arguments: &[&str]) -> (bool, String) {
    let done = stage.board.beside(&[&["ca"], arguments].concat(), "").await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.success(), said)
}

async fn status(stage: &Stage) -> Value {
    let (ok, said) = ca(stage, &["status", "--json"]).await;
    assert!(ok, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

async fn acknowledged(stage: &Stage) -> usize {
    let status = status(stage).await;
    let devices = status["coming"]["devices"].as_array().cloned().unwrap_or_default();
    devices.iter().filter(|device| device["acknowledged"] == true).count()
}

/// The agent gets a certificate of the coming authority, because its own is of the old one, and is let in with it.
async fn exchanges_and_links(agent: &mut Agent) {
    let early = identity(agent)["not_after"].as_i64().unwrap() - 5 * DAY_US;
    starts_and_renews(agent, early).await;
    agent.stop().await.unwrap();
    links_again(agent).await;
}

#[tokio::test]
async fn a_new_authority_reaches_all_devices_before_it_is_shown() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let (mut on, mut off, mut late) = (stage.agent("on"), stage.agent("off"), stage.agent("late"));
    stage.enroll(&client, &on).await;
    stage.enroll(&client, &off).await;
    on.start().unwrap();

    let (ok, said) = ca(&stage, &["rotate"]).await;
    assert!(ok, "{said}");
    let old = status(&stage).await["pin"].as_str().unwrap().to_owned();
    let new = status(&stage).await["coming"]["pin"].as_str().unwrap().to_owned();
    until("the device that is on keeps the new pin", async || acknowledged(&stage).await == 1).await;
    let kept = identity(&on);
    assert_eq!(kept["pin"], old.as_str());
    assert!(kept["next_ca"].is_object(), "beside the old one: {kept:#}");
    let (ok, said) = ca(&stage, &["rotate", "--finish"]).await;
    assert!(!ok && said.contains("would have to join again"), "{said}");

    // Joining meanwhile: with the old pin, and told of the new one like the others.
    let join = stage.consultant.join_command(&client).await.unwrap();
    assert_eq!(join.pin, old);
    stage.enroll(&client, &late).await;
    late.start().unwrap();
    until("the new device keeps the new pin", async || acknowledged(&stage).await == 2).await;

    // The board is killed and comes back; the device that was off learns at its first hello.
    stage.board.kill().await.unwrap();
    stage.board.serve("127.0.0.1:0").await.unwrap();
    stage.relay.point(&stage.board.agents_address);
    off.start().unwrap();
    until("the device that was off keeps the new pin", async || acknowledged(&stage).await == 3).await;

    // A certificate from the new authority while the old one is shown, and it is let in with it.
    on.stop().await.unwrap();
    exchanges_and_links(&mut on).await;
    off.stop().await.unwrap();

    let (ok, said) = ca(&stage, &["rotate", "--finish"]).await;
    assert!(ok, "{said}");
    assert_eq!(status(&stage).await["pin"], new.as_str());
    until("join commands name the new pin", async || {
        stage.consultant.join_command(&client).await.unwrap().pin == new
    })
    .await;

    // The one with a certificate of the old authority is let in too, and believes the new one alone from then on.
    for agent in [&mut on, &mut late] {
        agent.stop().await.unwrap();
        links_again(agent).await;
    }
    links_again(&mut off).await;
    for agent in [&mut on, &mut off, &mut late] {
        let after = identity(agent);
        assert_eq!(after["pin"], new.as_str());
        assert!(after["next_ca"].is_null(), "{after:#}");
        agent.stop().await.unwrap();
    }
    exchanges_and_links(&mut off).await;
    off.stop().await.unwrap();

    let fresh = stage.agent("fresh");
    stage.enroll(&client, &fresh).await;
    assert_eq!(identity(&fresh)["pin"], new.as_str());
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let audit = stage.consultant.get("/audit.csv").await.unwrap();
    assert!(audit.contains("ca.rotation-finished"), "{audit}");
    assert!(!audit.contains("device.refused"), "{audit}");
}

#[tokio::test]
async fn forced_it_strands_who_did_not_hear_of_it_and_that_one_joins_again() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut off = stage.agent("off");
    stage.enroll(&client, &off).await;
    let (ok, said) = ca(&stage, &["rotate"]).await;
    assert!(ok, "{said}");
    let (ok, said) = ca(&stage, &["rotate", "--finish", "--force"]).await;
    assert!(ok && said.contains("have to join again") && said.contains("Example Client"), "{said}");
    let new = status(&stage).await["pin"].as_str().unwrap().to_owned();
    until("join commands name the new pin", async || {
        stage.consultant.join_command(&client).await.unwrap().pin == new
    })
    .await;
    off.start().unwrap();
    until("the old pin doesn't fit any more", async || {
        std::fs::read_to_string(off.log()).unwrap().contains("not the one that the pin names")
    })
    .await;
    off.stop().await.unwrap();
    std::fs::remove_dir_all(&off.data).unwrap();
    stage.enroll(&client, &off).await;
    links_again(&mut off).await;
    off.stop().await.unwrap();
}
