//! Outgoing HTTP, below the clients: connections, trust, where a name leads, what failures mean, when to try again.
//!
//! [`Connection::client`] makes the HTTP client for one server, [`Retries`] decide how often and when a request is
//! repeated, [`CertificateProblem`] and [`Message`] put into words what the server is or says. Who asks, for what, and
//! what an answer means is the business of `registry` and `platform`, each with its own `Error`.
//!
//! Redirections are not followed here, because who follows them decides whether credentials go along. Proxies are
//! used where the options say so, those of the environment only by commands.

mod connect;
mod error;
mod message;
mod proxy;
mod retry;
mod share;

pub use self::connect::{
    CONNECT_TIMEOUT, Connection, Cookies, Identity, Trust, USER_AGENT, Verification,
    ensure_crypto_provider, is_bare,
};
pub use self::error::{
    Action, CertificateProblem, Error, find_refused_identity, find_source, is_refused_by_proxy,
    unreachable_hint,
};
pub use self::message::Message;
pub use self::proxy::{Proxies, Proxy, ProxyLogin};
pub use self::retry::{Attempts, Retries, RetryAfter, parse_retry_after};
pub use self::share::Share;
