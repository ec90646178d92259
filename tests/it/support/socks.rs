//! A SOCKS5 proxy.
//!
//! # Format
//!
//! ```text
//! client: 5, count, methods             server: 5, method (0 nothing, 2 login, 255 none of them)
//! client: 1, length, name, length, word server: 1, 0 or 1                    with method 2 only
//! client: 5, 1 (connect), 0, address, port
//! server: 5, 0 or an error, 0, address, port; then everything is passed on
//! address = 1, 4 bytes | 3, length, name | 4, 16 bytes
//! ```
//!
//! # References
//!
//! RFC 1928, RFC 1929.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 255;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// "Host unreachable".
const UNREACHABLE: u8 = 4;

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Socks {
    state: Arc<State>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    login: Option<(String, String)>,
    /// Where names lead, whatever the port. Addresses lead to themselves.
    names: Vec<(&'static str, IpAddr)>,
    targets: Mutex<Vec<String>>,
}

impl Socks {
    /// Starts a proxy that knows `names`, and lets in only who logs in where `login` is a name and a password.
    pub(crate) async fn start(
        login: Option<(&str, &str)>,
        names: Vec<(&'static str, IpAddr)>,
    ) -> Self {
        let state = Arc::new(State {
            login: login.map(|(username, password)| (username.to_owned(), password.to_owned())),
            names,
            targets: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(accept(listener, Arc::clone(&state))),
            state,
        }
    }

    /// Returns where the proxy listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what connections were asked for so far, as `name:port` or `address:port`.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.state.targets.lock().unwrap().clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // A client that breaks the protocol is left alone.
            drop(state.serve(stream).await);
        });
    }
}

impl State {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        self.greet(&mut stream).await?;
        let [version, command, reserved, kind] = read(&mut stream).await?;
        expect(version == VERSION && command == CONNECT && reserved == 0)?;
        let (shown, host) = match kind {
            IPV4 => {
                let address = Ipv4Addr::from(read::<4>(&mut stream).await?);
                (address.to_string(), Some(address.into()))
            }
            IPV6 => {
                let address = Ipv6Addr::from(read::<16>(&mut stream).await?);
                (format!("[{address}]"), Some(address.into()))
            }
            NAME => {
                let name = read_word(&mut stream).await?;
                let known = self.names.iter().find(|(known, _)| *known == name);
                (name, known.map(|(_, address)| *address))
            }
            _ => return expect(false),
        };
        let port = u16::from_be_bytes(read(&mut stream).await?);
        self.targets.lock().unwrap().push(format!("{shown}:{port}"));
        let upstream = match host {
            Some(host) => TcpStream::connect((host, port)).await.ok(),
            None => None,
        };
        let status = if upstream.is_some() { 0 } else { UNREACHABLE };
        let answer = [VERSION, status, 0, IPV4, 0, 0, 0, 0, 0, 0];
        stream.write_all(&answer).await?;
        if let Some(mut upstream) = upstream {
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await?;
        }
        Ok(())
    }

    async fn greet(&self, stream: &mut TcpStream) -> io::Result<()> {
        let [version, count] = read(stream).await?;
        expect(version == VERSION)?;
        let mut methods = vec![0; usize::from(count)];
        stream.read_exact(&mut methods).await?;
        let wanted = if self.login.is_some() {
            LOGIN
        } else {
            NO_LOGIN
        };
        if !methods.contains(&wanted) {
            stream.write_all(&[VERSION, NO_METHOD]).await?;
            return expect(false);
        }
        stream.write_all(&[VERSION, wanted]).await?;
        let Some(login) = &self.login else {
            return Ok(());
        };
        let [version] = read(stream).await?;
        expect(version == LOGIN_VERSION)?;
        let found = (read_word(stream).await?, read_word(stream).await?);
        let is_known = found == *login;
        stream
            .write_all(&[LOGIN_VERSION, u8::from(!is_known)])
            .await?;
        expect(is_known)
    }
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads text with its length before it.
async fn read_word(stream: &mut TcpStream) -> io::Result<String> {
    let [length] = read(stream).await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn expect(is_so: bool) -> io::Result<()> {
    is_so
        .then_some(())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
