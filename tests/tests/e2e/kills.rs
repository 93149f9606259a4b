//! Board and agent are killed at random moments of a runbook of eight quick steps; the link is cut as well. The runbook
//! still ends, no step's effect is doubled, and the audit chain holds.

use std::time::{Duration, Instant};

use crate::stage::{Database, SOON, Stage};

/// Kills of each program, over as many runbooks as it takes.
const KILLS: usize = 20;
const LIMIT: Duration = Duration::from_secs(170);

/// A small generator (Vigna's splitmix64), so that a failing run can be repeated from the seed that it prints.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[tokio::test]
async fn twenty_kills_of_board_and_agent_double_nothing_and_lose_nothing() {
    let seed = u64::from(std::process::id());
    let mut dice = Dice(seed);
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let started = Instant::now();
    let (mut boards, mut agents, mut rounds) = (0, 0, 0);
    while boards < KILLS || agents < KILLS {
        rounds += 1;
        assert!(
            started.elapsed() < LIMIT,
            "seed {seed}: {boards} and {agents} kills in {:?}",
            started.elapsed()
        );
        let mut agent = stage.agent(&format!("mac{rounds}"));
        let device = stage.enroll(&client, &agent).await;
        agent.start().unwrap();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(100 + dice.below(700))).await;
            match dice.below(5) {
                0 | 1 if boards < KILLS => {
                    stage.board.kill().await.unwrap();
                    boards += 1;
                    let address = stage.board.agents_address.clone();
                    stage.board.serve(&address).await.unwrap();
                }
                2 | 3 if agents < KILLS => {
                    agent.kill().await.unwrap();
                    agents += 1;
                    agent.start().unwrap();
                }
                _ => stage.relay.cut(),
            }
        }
        let done = stage.consultant.runbook_done(&device, SOON).await;
        let runbook = done.unwrap_or_else(|error| panic!("seed {seed}, round {rounds}: {error:#}"));
        let steps = runbook["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 9);
        assert!(steps.iter().all(|step| step["state"] == "succeeded"), "seed {seed}: {runbook:#}");
        let effects = std::fs::read_to_string(agent.home().join("effects")).unwrap();
        let effects: String = effects.split_whitespace().collect();
        assert_eq!(effects, "12345678", "seed {seed}, round {rounds}");
        agent.stop().await.unwrap();
    }
    stage.board.stop().await.unwrap();
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"), "seed {seed}");
}
