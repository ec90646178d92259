//! Client of one OCI registry: manifests, tags, blobs, uploads.
//!
//! Start from [`Client`], made of [`Options`]. The client knows how to talk to a registry and nothing of what is
//! mirrored or why. It is cheap to clone; clones share connections, tokens and [`Counters`].
//!
//! Authentication is written here, although `oci-client` has one, because that one cannot resolve a realm that is
//! relative to the registry (`/auth/token`, as the platform's registry has it), ask for two scopes at once as a mount
//! needs, or dial another host than the name says (`connect_to`).
//!
//! # Layout
//!
//! ```text
//! manifest  blob  upload  listing   operations of the specification
//!      `-----+-----+---------'
//!      exchange             authorise, send, follow, repeat; when it may, says pace
//!      .---+---.
//!     auth     |            who asks (login, challenge, realm, scope, token)
//!      `---.---'
//!         wire              one request, one answer (payload, refusal)
//! ```
//!
//! # Invariants
//!
//! - No blob is ever in memory: pieces of 256 KiB go from file to connection.
//! - Every body that is read has a bound, and so have attempts, pages, redirections and remembered tokens.
//! - Manifests have the digest they were asked for by, or there is an error.
//!
//! # Concurrency
//!
//! All methods can be called at once from any number of tasks; how many requests are in flight is decided by `pace`. Dropping
//! a future cuts its connection and leaves an upload session behind: [`Uploads`] is where the next call finds it.
//!
//! # Failure
//!
//! What may pass by itself is repeated, see [`Retries`]. There is no limit on the time of a whole request, only on time
//! without progress. [`Error`] says what was being done, where, and what the registry said.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0; Distribution project, "Token Authentication Specification".

mod auth;
mod blob;
mod challenge;
mod error;
mod exchange;
mod link;
mod listing;
mod login;
mod manifest;
mod options;
mod pace;
mod payload;
mod realm;
mod refusal;
mod scope;
mod token;
mod upload;
mod wire;

use std::num::NonZeroU64;
use std::sync::Arc;

use reqwest::Method;

pub use self::error::{Error, User};
use self::exchange::{Exchange, Operation};
pub use self::login::{
    Credentials, DockerConfig, Error as LoginError, Helper, Login, LoginFile, ReadConfig,
};
pub use self::manifest::ManifestReference;
pub use self::options::{Options, Timeouts, Transport};
pub use self::pace::{BreakerOptions, BreakerState, Kind, KindState, PaceOptions, PaceState};
pub use self::payload::BlobSource;
use self::scope::Scopes;
use self::upload::Learned;
pub use self::upload::{Mount, NoUploads, Unfinished, Uploaded, Uploads};
pub use self::wire::Counters;
use self::wire::Request;
use crate::base::{Clock, SystemClock};
pub use crate::transport::{
    Action, CertificateProblem, Identity, Message, Proxies, Proxy, ProxyLogin, Retries, Share,
    Trust, Verification,
};

/// A client of one registry.
#[derive(Clone, Debug)]
pub struct Client {
    exchange: Arc<Exchange>,
    learned: Arc<Learned>,
}

impl Client {
    /// Makes a client. Nothing is sent yet.
    pub fn new(options: Options) -> Result<Self, Error> {
        Self::with_clock(options, Arc::new(SystemClock))
    }

    /// Makes a client that takes the age of tokens and the dates of `Retry-After` from `clock`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the credentials in the options belong to the client from here on"
    )]
    pub fn with_clock(options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let learned = Arc::new(Learned::new(Arc::clone(&clock)));
        let exchange = Arc::new(Exchange::new(&options, clock)?);
        Ok(Self { exchange, learned })
    }

    /// Returns the registry's address, as the options name it.
    pub fn address(&self) -> &str {
        &self.exchange().wire().address
    }

    /// Checks that there is a registry and that it lets us in.
    pub async fn check(&self) -> Result<(), Error> {
        let exchange = self.exchange();
        let operation = Operation {
            request: Request::new(
                Method::GET,
                auth::version_url(&exchange.wire().base),
                exchange.action("greet the registry".to_owned()),
            ),
            scopes: Scopes::none(),
            expected: &[200],
        };
        exchange.run(&operation).await.map(drop)
    }

    /// Returns what the client and its clones have done so far.
    pub fn counters(&self) -> Counters {
        self.exchange().wire().tally.counters()
    }

    /// Returns how fast and how much at once the registry is asked now.
    pub fn pace(&self) -> PaceState {
        let exchange = self.exchange();
        exchange.wire().pace.state(exchange.clock().now())
    }

    /// Changes how many bytes of blobs are sent per second, also by what is under way; `None` is without limit. Lasts as long
    /// as the client.
    pub fn set_bandwidth(&self, bandwidth_max: Option<NonZeroU64>) {
        self.exchange().wire().pace.set_bandwidth(bandwidth_max);
    }

    fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    fn learned(&self) -> &Learned {
        &self.learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, Repository};

    /// Every operation can be spawned. Compiling is the test; nothing is sent.
    #[test]
    fn operations_run_on_any_thread() {
        fn check(_: impl Send) {}
        let options = Options::new("registry.example".to_owned(), Transport::Http);
        let client = Client::new(options).unwrap();
        let repository: Repository = "a".parse().unwrap();
        let digest = Digest::of(b"");
        let reference = ManifestReference::Digest(digest);
        let source: BlobSource = Arc::new(|| std::fs::File::open("/dev/null"));
        let descriptor = crate::base::oci::Descriptor {
            media_type: String::new(),
            digest,
            size_bytes: 0,
        };
        check(client.check());
        check(client.find_manifest(&repository, &reference));
        check(client.get_manifest(&repository, &reference));
        check(client.put_manifest(&repository, &reference, "", bytes::Bytes::new()));
        check(client.find_blob(&repository, &digest));
        check(client.get_blob(&repository, &digest));
        let mount = Mount::From(&repository);
        check(client.upload_blob(&repository, &descriptor, &source, mount, &NoUploads));
        check(client.list_tags(&repository));
        check(client.list_repositories());
        check(client.list_referrers(&repository, &digest));
        assert_eq!(client.counters(), Counters::default());
        assert_eq!(client.address(), "registry.example");
    }
}
