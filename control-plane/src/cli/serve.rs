//! `board serve`: console and agents' port until a signal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::random::Random;
use shared::time::Clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use url::Host;

use super::ServeArgs;
use crate::db::{Db, Ownership};
use crate::keys::Outside;
use crate::outbound::Outbound;
use crate::{audit, board, link, offboarding, providers, router};

/// Open pages and links get this long to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

pub async fn serve(
    args: ServeArgs,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> anyhow::Result<String> {
    if !args.console.ip().is_loopback() {
        bail!(
            "the console would be served without TLS on {}: give a loopback address, and put a proxy that speaks TLS before it",
            args.console
        );
    }
    let db = args.place.connect().await?;
    if db.prepare().await? == Ownership::Board && matches!(db, Db::Postgres(_)) {
        tracing::warn!(
            "the board's role owns its tables, so only triggers keep it from changing the audit log: for production give the board a role of its own with `board migrate --owner-url`"
        );
    }
    let also = args.key.named()?;
    let console = listen(args.console).await?;
    let agents = listen(args.agents).await?;
    let agents_address = agents.local_addr()?;
    let agents_url = args.agents_url.unwrap_or_else(|| format!("https://{agents_address}"));
    let mut outside = Outside::process(clock);
    if let Some(address) = args.providers_stand_in {
        outside.outbound = Outbound::through(address)?;
    }
    let app = board::open(db, also, outside, agents_url, args.proxy, random)
        .await?
        .with_backups_kept(args.backup_retention_days);
    let own = format!("http://localhost:{}", console.local_addr()?.port());
    let console_url = match (args.console_url, args.proxy) {
        (None, None) => Some(own.parse()?),
        (named, _) => named,
    };
    if let Some(url) = console_url {
        if !matches!(url.host(), Some(Host::Domain(_))) {
            bail!(
                "--console-url {url} has no name: browsers keep no passkeys for an IP address, so give a name, such as http://localhost:8080"
            );
        }
        app.console_url.get_or_init(|| url);
    }
    say(&format!("Console: http://{}", console.local_addr()?));
    say(&format!("Listening for agents: {agents_address}"));

    let looking = tokio::spawn(board::watch_root_key(app.clone()));
    let checking = tokio::spawn(audit::keep_checked(app.clone()));
    let (stop, stopped) = watch::channel(false);
    let routes = router::agents(app.clone());
    let agents = tokio::spawn(link::serve(
        app.clone(),
        agents,
        routes,
        args.agents_per_address,
        until(stopped.clone()),
    ));
    let keys = tokio::spawn(providers::serve(app.clone()));
    let purging = tokio::spawn(offboarding::job(app.clone(), stopped.clone()));
    let pages = router::console(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let console =
        tokio::spawn(axum::serve(console, pages).with_graceful_shutdown(until(stopped)).into_future());
    tokio::pin!(agents, console);
    tokio::select! {
        signalled = signalled() => signalled?,
        ended = &mut agents => {
            ended.context("the agents' listener ended badly")??;
            bail!("the agents' listener ended by itself");
        }
        ended = &mut console => {
            ended.context("the console ended badly")??;
            bail!("the console ended by itself");
        }
    }
    tracing::info!("stopping");
    looking.abort();
    let _ = stop.send(true);
    checking.abort();
    agents.await.context("the agents' listener ended badly")??;
    // Live pages never end by themselves.
    let _ = tokio::time::timeout(GRACE, console).await;
    // Whatever it is at is taken up again after the next start.
    keys.abort();
    let _ = purging.await;
    app.db.close().await;
    Ok("Stopped.".into())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{address} can't be listened on: another program may use it, or it is not an address of this machine")
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn signalled() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        done = tokio::signal::ctrl_c() => done,
    }
}

#[expect(clippy::print_stdout, reason = "the addresses are this command's output")]
fn say(line: &str) {
    use std::io::Write as _;
    println!("{line}");
    let _ = std::io::stdout().flush();
}
