//! Stands between agents and the board: counts the bytes of both directions, and can cut every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Relay {
    pub address: String,
    pub to_board: Arc<AtomicU64>,
    pub to_agent: Arc<AtomicU64>,
    target: watch::Sender<String>,
    cut: watch::Sender<u64>,
}

impl Relay {
    /// Listens on a free port. Connections go to the address that [`Relay::point`] named last.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Self {
            address: listener.local_addr()?.to_string(),
            to_board: Arc::default(),
            to_agent: Arc::default(),
            target: watch::Sender::new(String::new()),
            cut: watch::Sender::new(0),
        };
        let copy = relay.clone();
        tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                tokio::spawn(copy.clone().carry(agent));
            }
        });
        Ok(relay)
    }

    pub fn point(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    /// Cuts every open connection, wherever it is.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    async fn carry(self, agent: TcpStream) {
        let target = self.target.borrow().clone();
        let Ok(board) = TcpStream::connect(target).await else { return };
        let mut cut = self.cut.subscribe();
        let (from_agent, to_agent) = agent.into_split();
        let (from_board, to_board) = board.into_split();
        tokio::select! {
            () = pump(from_agent, to_board, self.to_board) => {}
            () = pump(from_board, to_agent, self.to_agent) => {}
            _ = cut.changed() => {}
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
