//! By hand: the browser is the consultant's, this terminal is the Mac.

use std::io::Write as _;
use std::time::Duration;

use regex::Regex;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Stage, say};
use crate::consultant::JoinCommand;
use crate::process::program;

/// Plays the Mac until Ctrl-C.
pub async fn by_hand(mut stage: Stage) -> anyhow::Result<()> {
    let console = &stage.board.console_url;
    say("");
    say("A board is running, and this terminal is a Mac at a client's office.");
    say("");
    say(format!("  1. Sign in here (the link works once):  {console}{}", stage.board.welcome));
    say("  2. Make a client, choose a package and what goes with it, enter our secrets.");
    say("  3. On the client's page, make a join code, and paste its command here.");
    say("");
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let join = loop {
        prompt("mac$ ");
        let Some(line) = input.next_line().await? else { return Ok(()) };
        match JoinCommand::parse(&line) {
            Ok(join) => break join,
            Err(_) if line.trim().is_empty() => {}
            Err(error) => say(format!("{error}: it begins with `sudo board-agent join --board …`.")),
        }
    };
    let mut joining = stage.agent.join(&join).await?;
    say("");
    say(format!("  Fingerprint: {}", joining.fingerprint));
    say("");
    say("  4. Type it into the page under Enrollments, and approve.");
    while let Some(line) = joining.process.line().await? {
        say(line);
    }
    let ended = joining.process.wait(Duration::from_secs(5)).await?;
    if !ended.success() {
        say(format!("The Mac did not join ({}). Its log: {}", ended, stage.agent.log().display()));
        return Ok(());
    }
    stage.agent.start()?;
    let data = stage.agent.data.display();
    say("The agent runs. Watch the runbook in the page; what happens here is below. End with Ctrl-C.");
    say("When the page asks you to paste on the Mac, do it in another terminal:");
    say(format!("  {} paste COMPONENT/SLOT --data {data}", program("board-agent")?.display()));
    tokio::select! {
        done = follow(&stage) => done?,
        done = tokio::signal::ctrl_c() => done?,
    }
    say("");
    stage.agent.stop().await?;
    stage.board.stop().await?;
    say(format!("Stopped. Everything lies in {}.", stage.board.layout.root.display()));
    Ok(())
}

/// Prints the agent's log as it grows, without its time stamps.
async fn follow(stage: &Stage) -> anyhow::Result<()> {
    let stamp = Regex::new(r"^\S+Z\s+")?;
    let colour = Regex::new("\u{1b}\\[[0-9;]*m")?;
    let mut shown = 0;
    loop {
        let text = std::fs::read_to_string(stage.agent.log())?;
        for line in text.get(shown..).unwrap_or_default().lines() {
            let plain = colour.replace_all(line, "");
            say(format!("mac: {}", stamp.replace(&plain, "")));
        }
        shown = text.len();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn prompt(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
