//! Addresses of servers, brought to one form so that two spellings of the same server are found to be equal.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;
use url::Url;

/// The longest host name, in bytes (RFC 1035, section 2.3.4, less the root label).
const HOST_BYTES_MAX: usize = 253;
/// The longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A host name in lower case without a dot at its end, or an IP address in its shortest form, without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

/// `host` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The port, where one was given.
    pub port: Option<u16>,
}

/// What is dialled in the end: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port, the scheme's own where none was given.
    pub port: u16,
}

/// Why a string is not an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseAddressError {
    /// Neither a host name nor an IP address.
    #[error("expected a host name or an IP address, found `{0}`")]
    Host(String),
    /// Not a port from 1 to 65535.
    #[error("expected a port from 1 to 65535, found `{0}`")]
    Port(String),
    /// With `https://` or a path, where only a host and a port belong.
    #[error("expected `host` or `host:port` without scheme and path, found `{0}`")]
    Url(String),
    /// No URL, or one with a path, a query or credentials.
    #[error("expected `https://host` or `https://host:port`, found `{0}`")]
    Platform(String),
}

impl Host {
    /// Returns the text, an IPv6 address without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseAddressError::Host(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(refused)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| refused())?;
            return Ok(Self(address.to_canonical().to_string()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().to_string()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // A name that ends in a number would be taken for an abbreviated IPv4 address by some programs.
        let ends_in_number = name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        if name.len() > HOST_BYTES_MAX || ends_in_number || !name.split('.').all(is_label) {
            return Err(refused());
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

/// Underscores are no part of host names, but exist.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(&self.0)
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') {
            return Err(ParseAddressError::Url(text.to_owned()));
        }
        // The port follows the last colon, unless that is inside an IPv6 address.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
            _ => (text, None),
        };
        let port = port
            .map(|port| match port.parse() {
                Ok(number) if number != 0 && !port.starts_with('+') => Ok(number),
                _ => Err(ParseAddressError::Port(port.to_owned())),
            })
            .transpose()?;
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Parses the address of a platform. Without a scheme it is `https`.
pub(super) fn parse_platform(text: &str) -> Result<Url, ParseAddressError> {
    let refused = || ParseAddressError::Platform(text.to_owned());
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|_| refused())?;
    let is_bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_bare || !matches!(url.scheme(), "http" | "https") || url.port() == Some(0) {
        return Err(refused());
    }
    host_of(&url)?;
    Ok(url)
}

/// Returns the host of a URL in the form in which it is compared.
pub(super) fn host_of(url: &Url) -> Result<Host, ParseAddressError> {
    url.host_str()
        .ok_or_else(|| ParseAddressError::Platform(url.to_string()))?
        .parse()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_server_are_equal() {
        for (text, printed) in [
            ("Registry.Example.", "registry.example"),
            ("registry.example:5000", "registry.example:5000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[0:0::1]:443", "[::1]:443"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::ffff:192.0.2.1]:5000", "192.0.2.1:5000"),
            ("my_registry-0.example.:1", "my_registry-0.example:1"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed, "input: {text}");
        }
    }

    #[test]
    fn refuses_what_is_no_host_and_port() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a b",
            "127.1",
            "10.0.0.256",
            "[::1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:",
            ":5000",
            "user@a",
            "a%41",
            "https://a",
            "a/b",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Address>().is_err(), "input: {bad:?}");
        }
    }

    #[test]
    fn platforms_are_urls_without_a_path() {
        for (text, printed) in [
            ("platform.example", "https://platform.example/"),
            ("https://Platform.example:443/", "https://platform.example/"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
        ] {
            assert_eq!(parse_platform(text).unwrap().as_str(), printed);
        }
        for bad in [
            "",
            "ftp://a",
            "https://a/b",
            "https://u:p@a",
            "https://a?q",
            "https://a:0",
            "unix:///x",
        ] {
            assert!(parse_platform(bad).is_err(), "input: {bad:?}");
        }
    }

    proptest! {
        #[test]
        fn display_round_trips(text in "[a-z0-9.:\\[\\]_-]{0,30}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
