//! A bad line to a server: it understands no HTTP, counts bytes, and breaks each connection that has carried enough.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Bytes read at a time. Chosen: small beside every limit that a test sets.
const PIECE_BYTES: usize = 64 << 10;

/// What becomes of a connection that has carried its share of bytes towards the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both ends are closed.
    Cut,
    /// Nothing goes to the server any more, and neither end is told.
    Stall,
}

/// A running line. Whatever is open is cut when it is dropped.
#[derive(Debug)]
pub(crate) struct RoughLine {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    broken: AtomicUsize,
}

impl RoughLine {
    /// Starts a line to `server`, each connection of which ends after `share_bytes` towards the server.
    pub(crate) async fn start(server: SocketAddr, ending: Ending, share_bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counts = Arc::new(Counts::default());
        let address = listener.local_addr().unwrap();
        let line = Connection {
            server,
            ending,
            share_bytes,
            counts: Arc::clone(&counts),
        };
        let task = tokio::spawn(accept(listener, line));
        Self {
            address,
            counts,
            task,
        }
    }

    /// Returns where the line begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many bytes have gone to the server, everything included.
    pub(crate) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Returns how many connections were broken.
    pub(crate) fn broken(&self) -> usize {
        self.counts.broken.load(Ordering::Relaxed)
    }
}

impl Drop for RoughLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, line: Connection) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(line.clone().carry(client));
    }
}

/// What happens to each connection.
#[derive(Clone, Debug)]
struct Connection {
    server: SocketAddr,
    ending: Ending,
    share_bytes: u64,
    counts: Arc<Counts>,
}

impl Connection {
    async fn carry(self, client: TcpStream) {
        // A client or a server that leaves is nobody's fault here.
        let Ok(server) = TcpStream::connect(self.server).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let is_spent = tokio::select! {
            is_spent = self.carry_up(from_client, to_server) => is_spent,
            () = carry_down(from_server, to_client) => false,
        };
        if is_spent {
            self.counts.broken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns whether the share is spent; otherwise one end has closed.
    async fn carry_up(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> bool {
        let mut left = self.share_bytes;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let size = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Ok(count @ 1..) = from.read(&mut piece[..size]).await else {
                return false;
            };
            if to.write_all(&piece[..count]).await.is_err() {
                return false;
            }
            left -= count as u64;
            self.counts.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        if self.ending == Ending::Stall {
            self.counts.broken.fetch_add(1, Ordering::Relaxed);
            // Holds both halves, and with them both connections, until the test is over.
            std::future::pending::<()>().await;
        }
        true
    }
}

async fn carry_down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // An error is an end as any other.
    drop(tokio::io::copy(&mut from, &mut to).await);
}
