//! While news comes in, nothing moves: the layout doesn't shift, the focus stays where it is, and a form that is being
//! filled is left alone.

use serde_json::{Value, json};

use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, SOON, Stage, VALUE};

/// Layout shifts that no input caused, and how often the live part of the page changed.
const WATCH: &str = "
    window.shifts = [];
    const moved = ({ node, previousRect: from, currentRect: to }) =>
        `${from.x},${from.y} to ${to.x},${to.y}: ${(node?.outerHTML ?? node?.parentElement?.outerHTML)?.slice(0, 200)}`;
    new PerformanceObserver((list) => {
        for (const { value, hadRecentInput, sources } of list.getEntries())
            if (!hadRecentInput) shifts.push([value, ...sources.map(moved)]);
    }).observe({ type: 'layout-shift' });
    window.changes = 0;
    const everything = { subtree: true, childList: true, characterData: true, attributes: true };
    new MutationObserver(() => changes++).observe(document.querySelector('live-region'), everything);";

#[tokio::test]
async fn nothing_moves_while_the_runbook_runs() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let params = [("param-asked-WORKSPACE", "office")];
    let client = stage.consultant.create_client("Example Client", &["tool", "asked"], &params).await.unwrap();
    stage.consultant.enter_secrets(&client, |_| VALUE.to_owned()).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    let window = sign_in(&stage.board).await;
    window.size(1280, 1600).await;
    window.go(&format!("/devices/{device}/runbook")).await;
    window.until("document.documentElement.dataset.live === 'on'").await;
    agent.start().unwrap();
    window.see("#group-1").await;
    window.eval(WATCH).await;
    focus(&window, "#group-1 summary").await;
    window.read(".tally", "10 of 12 done").await;
    window.read(".tally", "1 needs you").await;
    assert_steady(&window).await;
    assert!(window.eval("return changes").await.as_u64().unwrap() >= 8, "the page was live all along");

    if window.eval("return document.querySelector('#next details').open").await == false {
        window.click("#next summary").await;
    }
    window.click("#next .manual > .fold > summary").await;
    window.fill("#next input[name=reason]", "They have").await;
    window.eval("window.held = document.activeElement").await;
    agent.stop().await.unwrap();
    window.read(".live-note", "News waits").await;
    assert_steady(&window).await;
    window.keys(" none").await;
    let typed = "held.isConnected && held.value";
    assert_eq!(window.eval(&format!("return {typed}")).await, "They have none");
    window.click(".live-note button").await;
    window.read("#runbook-head", "Off").await;
    assert_eq!(window.eval(&format!("return {typed}")).await, "They have none", "news doesn't take it away");

    window.see("#next input[name=reason]").await.clear().await.unwrap();
    focus(&window, "#group-1 summary").await;
    agent.start().unwrap();
    window.read("#runbook-head", "On, connected").await;
    agent.paste("asked/THEIR_KEY", VALUE).await.unwrap();
    window.read(".tally", "12 of 12 done").await;
    assert_steady(&window).await;

    // The watch sees a shift when there is one; not within half a second of an input.
    let shift = "document.querySelector('main').prepend(Object.assign(document.createElement('p'), { textContent: 'x' }))";
    window.until(&format!("shifts.length || void {shift}")).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_step_that_fails_and_one_that_waits_for_a_delivery_move_nothing() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["tool", "broken"], &[]).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    let window = sign_in(&stage.board).await;
    window.size(1280, 1600).await;
    window.go(&format!("/devices/{device}/runbook")).await;
    window.until("document.documentElement.dataset.live === 'on'").await;
    agent.start().unwrap();
    window.see("#group-1").await;
    window.eval(WATCH).await;
    focus(&window, "#group-1 summary").await;
    window.read(".step .meta", "waits for the delivery of tool/OUR_KEY").await;
    window.read(".tally", "1 failed").await;
    assert_steady(&window).await;
    let heights =
        "return [...new Set([...document.querySelectorAll('.step .row')].map((row) => row.offsetHeight))]";
    let heights = window.eval(heights).await;
    assert_eq!(heights.as_array().unwrap().len(), 1, "every line is as high as the others: {heights}");

    // What there is to read and to do is folded into their lines.
    assert_eq!(
        window.eval("return document.querySelector('.step.is-failed pre').checkVisibility()").await,
        false
    );
    window.click(".tally .is-failed a").await;
    window.read(".step.is-failed pre", "0000").await;
    window.see(".step.is-failed form[action$='/retry'] button").await;
    window.click(".step.is-waiting .todo summary").await;
    window.see(".step.is-waiting form[action$='/skip'] input[name=reason]").await;

    // A page that is opened has room for it at once.
    window.go(&format!("/devices/{device}/runbook")).await;
    window.read(".step.is-failed pre", "0000").await;
    window.until("document.documentElement.dataset.live === 'on'").await;
    window.eval(WATCH).await;
    focus(&window, "#group-1 summary").await;
    // Elsewhere somebody tries it again, and it fails again.
    let output = "document.querySelector('.step.is-failed a[href*=\"/output/\"]')?.getAttribute('href')";
    let before = window.eval(&format!("return {output}")).await;
    let retry =
        window.eval("return document.querySelector('form[action$=\"/retry\"]').getAttribute('action')").await;
    let answer = stage.consultant.post(retry.as_str().unwrap(), &[]).await.unwrap();
    assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
    window.until(&format!("{output} && {output} !== {before}")).await;
    assert_steady(&window).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_pauses_plans_and_resumes_moves_nothing() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    std::fs::remove_file(agent.home().join("done-4")).unwrap();
    let window = sign_in(&stage.board).await;
    window.size(1280, 1600).await;
    let runbook = format!("/devices/{device}/runbook");
    window.go(&runbook).await;
    window.until("document.documentElement.dataset.live === 'on'").await;
    window.click("#group-1 summary").await;
    window.eval(WATCH).await;
    focus(&window, "#group-1 summary").await;
    let steps = [
        ("pause", "Paused by", "#pause-why"),
        ("plan", "1 not so any more", "#group-1 .planned.is-needs"),
        ("resume", "by itself", "#pause"),
    ];
    for (what, says, shows) in steps {
        let form = [("reason", "The client is on a call, and we look first at what would change")];
        let answer = stage.consultant.post(&format!("{runbook}/{what}"), &form).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
        window.read(".standing", says).await;
        window.see(shows).await;
        assert_steady(&window).await;
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_that_asks_moves_nothing_that_is_being_typed() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let join = stage.consultant.join_command(&client).await.unwrap();
    let first = stage.agent("first").join(&join).await.unwrap();
    let window = sign_in(&stage.board).await;
    window.size(1280, 1600).await;
    window.go("/enrollments").await;
    window.until("document.documentElement.dataset.live === 'on'").await;
    window.click("input[name=fingerprint]").await;
    window.keys(&first.fingerprint[..4]).await;
    window.eval("window.held = document.activeElement").await;
    window.eval(WATCH).await;
    let join = stage.consultant.join_command(&client).await.unwrap();
    let second = stage.agent("second").join(&join).await.unwrap();
    window.read(".live-note", "News waits").await;
    assert_steady(&window).await;
    window.keys(first.fingerprint[4..].replace(' ', "")).await;
    window.click("form.approve button").await;
    window.arrive("/runbook").await;
    drop(second);
}

async fn focus(window: &Window, selector: &str) {
    window.see(selector).await;
    window.call("window.held = document.querySelector(arguments[0]); held.focus()", [json!(selector)]).await;
}

async fn assert_steady(window: &Window) {
    assert_eq!(window.eval("return shifts").await, Value::Array(Vec::new()), "the layout shifts");
    let focused = "return document.activeElement === held || document.activeElement.outerHTML";
    assert_eq!(window.eval(focused).await, true, "the focus moves");
}
