//! Live pages: a fragment, rendered again whenever something it shows may have changed, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::error::Failure;
use crate::jobs::Wake;

/// What a live page shows at one moment.
pub struct Shown {
    pub html: String,
    pub title: String,
    pub favicon: &'static str,
    /// What waits for this viewer as a second person: the badge in the navigation.
    pub approvals: u32,
}

/// Fragments are sent at most this often, so that a chatty step doesn't flood the page.
const PACE: Duration = Duration::from_millis(150);
/// Looks again without being woken: relative times move on, and a lost wake-up costs no more than this.
const REFRESH: Duration = Duration::from_secs(20);

/// Sends the whole fragment at once, then after every change that `wanted` accepts. Ends when the viewer may not see
/// it any more (`render` fails) or goes away.
pub fn stream<R, F>(app: &App, wanted: impl Fn(Wake) -> bool + Send + Sync + 'static, render: R) -> Response
where
    R: Fn() -> F + Send + 'static,
    F: Future<Output = Result<Shown, Failure>> + Send,
{
    let mut changes = app.jobs.listen();
    let (sender, receiver) = mpsc::channel::<Result<Event, Infallible>>(4);
    tokio::spawn(async move {
        let mut last = String::new();
        let mut counted = None;
        loop {
            let Ok(shown) = render().await else { return };
            if shown.html != last {
                let events = [
                    Event::default().event("title").data(shown.title),
                    Event::default().event("favicon").data(shown.favicon),
                    Event::default().data(&shown.html),
                ];
                for event in events {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                last = shown.html;
            }
            if counted != Some(shown.approvals) {
                let event = Event::default().event("approvals").data(shown.approvals.to_string());
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
                counted = Some(shown.approvals);
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PACE) => {}
            }
            tokio::select! {
                () = sender.closed() => return,
                () = changes.next(|wake| wake == Wake::Approvals || wanted(wake)) => {}
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(REFRESH)).into_response()
}
