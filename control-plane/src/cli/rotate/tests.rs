use std::cell::RefCell;

use super::*;
use crate::db::testing::on_both;
use crate::testing::{Fixture, MANIFESTS};

const OTHER: (&str, &str) = (
    "wider",
    r#"
key = "wider"
name = "Wider"
category = "ai"
summary = "Has two secrets of ours."
platforms = ["macos", "linux"]
[[slot]]
key = "ONE"
name = "One"
tag = "our-managed"
[[slot]]
key = "TWO"
name = "Two"
tag = "our-managed"
[[step]]
id = "install"
kind = "auto"
title = "Install it"
as = "user"
check = "false"
run = "true"
"#,
);

#[tokio::test]
async fn what_was_rotated_before_a_failure_is_said_and_nothing_is_asked_after_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        fixture.import(2, &[MANIFESTS, &[OTHER]].concat()).await.unwrap();
        let id = fixture.client("Example Client", &["base", "tool", "wider"]).await;
        let name = id.to_string();
        let (client, slots) = found(&fixture.app, &name).await.unwrap();
        for (slot, _) in &slots {
            let value = Secret::new("ours-canary-first".to_owned());
            secrets::put(&fixture.app, Who::cli(), &client, slot, &value).await.unwrap();
        }
        let (client, slots) = found(&fixture.app, &name).await.unwrap();
        let answers = RefCell::new(vec![Err(anyhow::anyhow!("it broke")), Ok("ours-canary-next")]);
        let enter = |prompt: &str, instead: &str| {
            let slot = prompt.split(' ').nth(3).unwrap();
            assert!(instead.contains(&format!("--slot {slot} --from-stdin")), "{instead}");
            let answer = answers.borrow_mut().pop().expect("nothing is asked after a failure");
            answer.map(|value| Secret::new(value.as_bytes().to_vec()))
        };
        let lines = all(&fixture.app, &client, &slots, "it leaked", enter).await.unwrap();
        let results: Vec<_> = lines.iter().map(|line| (line.result, line.version)).collect();
        assert_eq!(results, [(Done::Rotated, 2), (Done::Failed, 1), (Done::NotAsked, 1)]);
        let text = as_text(&lines);
        assert!(text.contains("✓ version 2") && text.contains("✗ it broke"), "{text}");
        let (_, slots) = found(&fixture.app, &name).await.unwrap();
        let versions: Vec<_> = slots.iter().map(|(_, known)| known.unwrap().version).collect();
        assert_eq!(versions, [2, 1, 1]);
    })
    .await;
}
