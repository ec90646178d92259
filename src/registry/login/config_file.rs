//! The file that `docker login` and `podman login` write.
//!
//! # Format
//!
//! ```text
//! {
//!   "auths": {
//!     "registry.example:5000":       { "auth": base64("user:password") },
//!     "https://index.docker.io/v1/": { "auth": ..., "identitytoken": "..." },
//!     "other.example":               { "username": "...", "password": "..." }
//!   },
//!   "credHelpers": { "registry.example": "ecr-login" },    program docker-credential-ecr-login
//!   "credsStore": "secretservice"                          for all others
//! }
//! ```
//!
//! Keys are hosts with or without port; in old files URLs, some with the path of an API. A key with the path of a
//! namespace (`registry.example/team`), as podman can have them, is not used, because one client with its tokens serves all of a
//! registry, and a mount reads one repository and writes another: [`LoginFile::namespaces`] names them. Unknown fields are
//! skipped.
//!
//! # References
//!
//! docker docs, "docker login", "Credential stores", "Credential helpers"; containers-auth.json(5).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use url::{Host, Url};

use super::helper::Helper;
use super::{Error, Login};
use crate::base::Secret;

/// The names of Docker Hub: what people write, under what docker files its login, and what is dialled.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The server that docker names to a store for Docker Hub.
const HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The longest key that can mean anything, in bytes. Chosen: a host name has 253, a repository 255.
const KEY_BYTES_MAX: usize = 1024;
/// What is left of a key's path in old files.
const API_PATHS: [&str; 5] = ["/", "/v1", "/v1/", "/v2", "/v2/"];

/// Base64 with or without padding: writers differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file, parsed.
#[derive(Deserialize)]
pub struct LoginFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl fmt::Debug for LoginFile {
    /// Says nothing of what stands there: those are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginFile").finish_non_exhaustive()
    }
}

impl LoginFile {
    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // The library's words may quote what stands there.
        serde_json::from_str(text).map_err(|error| Error::Syntax {
            line: error.line(),
            column: error.column(),
        })
    }

    /// Returns the helper that knows the login for the registry of which `base` is the URL.
    pub fn helper(&self, base: &Url) -> Result<Option<Helper>, Error> {
        let own = self.helpers.as_ref().and_then(|map| find(map, base));
        let (name, server) = match own {
            Some((key, name)) => (name.as_str(), key.to_owned()),
            None => (
                self.store.as_deref().unwrap_or_default(),
                self.server_of_store(base),
            ),
        };
        // Without a name it is the file itself.
        if name.is_empty() {
            return Ok(None);
        }
        Helper::new(name, server).map(Some)
    }

    /// Returns the login that stands in the file itself.
    pub fn login(&self, base: &Url) -> Result<Option<Login>, Error> {
        let Some((key, Some(entry))) = self.auths.as_ref().and_then(|map| find(map, base)) else {
            return Ok(None);
        };
        entry.login().map_err(|expected| Error::Entry {
            server: key.to_owned(),
            expected,
        })
    }

    /// Returns the keys that are for a part of the registry only, in their order. They are not used.
    pub fn namespaces(&self, base: &Url) -> Vec<&str> {
        let auths = self.auths.iter().flat_map(BTreeMap::keys);
        let helpers = self.helpers.iter().flat_map(BTreeMap::keys);
        let mut keys: Vec<&str> = auths
            .chain(helpers)
            .map(String::as_str)
            .filter(|key| meaning(key, base) == Some(Meaning::Namespace))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Returns by which name a store knows the registry: docker leaves an empty entry under it.
    fn server_of_store(&self, base: &Url) -> String {
        let entry = self.auths.as_ref().and_then(|map| find(map, base));
        match entry {
            Some((key, _)) => key.to_owned(),
            None if is_hub(base) => HUB_SERVER.to_owned(),
            None => base.authority().to_owned(),
        }
    }
}

impl Entry {
    /// Returns the login, or what was expected instead.
    fn login(&self) -> Result<Option<Login>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = given(&self.auth) {
            const EXPECTED: &str = "`auth` to be `user:password` in base64";
            let pair = BASE64.decode(auth.trim()).map_err(|_| EXPECTED)?;
            let pair = String::from_utf8(pair).map_err(|_| EXPECTED)?;
            let (username, password) = pair.split_once(':').ok_or(EXPECTED)?;
            // docker once filled passwords up with zeros.
            let password = password.trim_end_matches('\0');
            return if username.is_empty() {
                Err(EXPECTED)
            } else {
                Ok(Some(Login::new(username.to_owned(), password.to_owned())))
            };
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(Login::new(username, password))),
            (None, None) => Ok(None),
            (Some(_), None) => Err("`password` beside `username`"),
            (None, Some(_)) => Err("`username` beside `password`"),
        }
    }
}

/// Finds the entry for a registry: the one under its very name, else the first that means it.
fn find<'a, T>(map: &'a BTreeMap<String, T>, base: &Url) -> Option<(&'a str, &'a T)> {
    let exact = map.get_key_value(base.authority());
    exact
        .or_else(|| {
            map.iter()
                .find(|(key, _)| meaning(key, base) == Some(Meaning::Registry))
        })
        .map(|(key, value)| (key.as_str(), value))
}

/// What of a registry a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Registry,
    Namespace,
}

/// Returns what of the registry at `base` a key is for, if it is. What was kept for TLS is not used without.
fn meaning(key: &str, base: &Url) -> Option<Meaning> {
    // A URL would be read without them, but helpers, terminals and logs would get them; and a backslash would be read as a slash.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if key.len() > KEY_BYTES_MAX || key.contains(is_odd) {
        return None;
    }
    let written = key.split_once("://");
    let (scheme, place) = written.unwrap_or((base.scheme(), key));
    if !matches!(scheme, "http" | "https") || (scheme == "https" && base.scheme() != "https") {
        return None;
    }
    let url = Url::parse(&format!("{}://{place}", base.scheme())).ok()?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let is_there = url.origin() == base.origin() || (is_hub(&url) && is_hub(base));
    if !is_bare || !is_there {
        None
    } else if API_PATHS.contains(&url.path()) {
        Some(Meaning::Registry)
    } else {
        // URLs are of old files, which know no namespaces.
        written.is_none().then_some(Meaning::Namespace)
    }
}

fn is_hub(url: &Url) -> bool {
    url.port().is_none() && matches!(url.host(), Some(Host::Domain(name)) if HUB.contains(&name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Chain;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    /// Shows what is found, `user/password` or `token`.
    fn found(text: &str, base: &str) -> String {
        let login = LoginFile::parse(text).and_then(|file| file.login(&url(base)));
        match login {
            Ok(Some(Login::Password(credentials))) => {
                format!("{}/{}", credentials.username, credentials.password.expose())
            }
            Ok(Some(Login::IdentityToken(token))) => format!("token {}", token.expose()),
            Ok(None) => "nothing".to_owned(),
            Err(error) => Chain(&error).to_string(),
        }
    }

    fn under(key: &str) -> String {
        // u:p
        format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#)
    }

    #[test]
    fn a_key_means_its_registry_in_every_form() {
        for (key, base) in [
            ("registry.example", "https://registry.example/"),
            ("Registry.Example", "https://registry.example/"),
            ("registry.example:443", "https://registry.example/"),
            ("https://registry.example", "https://registry.example/"),
            ("https://registry.example/v1/", "https://registry.example/"),
            ("https://registry.example/v2", "https://registry.example/"),
            (
                "http://registry.example:5000",
                "http://registry.example:5000/",
            ),
            ("registry.example:5000", "http://registry.example:5000/"),
            ("registry.example", "http://registry.example/"),
            ("[::1]:5000", "https://[::1]:5000/"),
            ("192.0.2.1:5000", "https://192.0.2.1:5000/"),
            (
                "https://index.docker.io/v1/",
                "https://registry-1.docker.io/",
            ),
            ("docker.io", "https://registry-1.docker.io/"),
            ("index.docker.io", "https://docker.io/"),
        ] {
            assert_eq!(found(&under(key), base), "u/p", "{key} for {base}");
        }
    }

    #[test]
    fn a_key_means_no_other_registry() {
        for (key, base) in [
            ("registry.example", "https://registry.example:5000/"),
            ("registry.example:5000", "https://registry.example/"),
            ("registry.example.evil", "https://registry.example/"),
            ("example", "https://registry.example/"),
            // A namespace of it.
            ("registry.example/team", "https://registry.example/"),
            // Kept for TLS.
            (
                "https://registry.example:5000",
                "http://registry.example:5000/",
            ),
            ("user@registry.example", "https://registry.example/"),
            ("ftp://registry.example", "https://registry.example/"),
            ("docker.io:5000", "https://registry-1.docker.io/"),
            ("", "https://registry.example/"),
            // Messages and helpers would get the rest of it.
            ("registry.example\\u0000", "https://registry.example/"),
            ("registry.\\nexample", "https://registry.example/"),
            (" registry.example", "https://registry.example/"),
            ("registry.example\\\\v1", "https://registry.example/"),
        ] {
            assert_eq!(found(&under(key), base), "nothing", "{key} for {base}");
        }
    }

    #[test]
    fn keys_for_a_part_of_a_registry_are_named() {
        let text = r#"{"auths":{"r":{},"r/team":{},"r/v2/":{},"https://r/old":{},"other/team":{},"u@r/x":{}},
            "credHelpers":{"r/team":"a","r/a/b":"c","r:443":"d","r:5000/x":"e"}}"#;
        let file = LoginFile::parse(text).unwrap();
        assert_eq!(file.namespaces(&url("https://r/")), ["r/a/b", "r/team"]);
        assert_eq!(file.namespaces(&url("https://r:5000/")), ["r:5000/x"]);
        assert!(file.namespaces(&url("https://third/")).is_empty());
    }

    #[test]
    fn a_login_is_found_in_every_form() {
        let entry = |entry: &str| {
            found(
                &format!(r#"{{"auths":{{"r":{entry}}},"HttpHeaders":{{"a":"b"}}}}"#),
                "https://r/",
            )
        };
        insta::assert_snapshot!(entry(r#"{"auth":"dTpw","email":"e"}"#), @"u/p");
        // Colons in the password, no padding, zeros at its end, line breaks around.
        insta::assert_snapshot!(entry(r#"{"auth":"dTphOmI"}"#), @"u/a:b");
        insta::assert_snapshot!(entry(r#"{"auth":"dTphOmI="}"#), @"u/a:b");
        insta::assert_snapshot!(entry(r#"{"auth":"dTpwAAA=\n"}"#), @"u/p");
        insta::assert_snapshot!(entry(r#"{"username":"u","password":"p"}"#), @"u/p");
        insta::assert_snapshot!(entry(r#"{"auth":"dTpw","identitytoken":"t"}"#), @"token t");
        // <token>:t
        insta::assert_snapshot!(entry(r#"{"auth":"PHRva2VuPjp0"}"#), @"token t");
        insta::assert_snapshot!(entry(r#"{"auth":""}"#), @"nothing");
        insta::assert_snapshot!(entry("{}"), @"nothing");
        insta::assert_snapshot!(entry("null"), @"nothing");
        insta::assert_snapshot!(found("{}", "https://r/"), @"nothing");
        insta::assert_snapshot!(found(r#"{"auths":null}"#, "https://r/"), @"nothing");
    }

    #[test]
    fn what_is_wrong_is_said_without_what_stands_there() {
        let entry = |entry: &str| {
            let text = format!(r#"{{"auths":{{"r":{entry}}}}}"#);
            found(&text, "https://r/")
        };
        insta::assert_snapshot!(entry(r#"{"auth":"hunter2!"}"#), @"expected `auth` to be `user:password` in base64 under `r`");
        // hunter2
        insta::assert_snapshot!(entry(r#"{"auth":"aHVudGVyMg=="}"#), @"expected `auth` to be `user:password` in base64 under `r`");
        // :hunter2
        insta::assert_snapshot!(entry(r#"{"auth":"Omh1bnRlcjI="}"#), @"expected `auth` to be `user:password` in base64 under `r`");
        insta::assert_snapshot!(entry(r#"{"password":"hunter2"}"#), @"expected `username` beside `password` under `r`");
        insta::assert_snapshot!(entry(r#"{"username":"u"}"#), @"expected `password` beside `username` under `r`");
        insta::assert_snapshot!(entry(r#""hunter2""#), @"expected a docker `config.json`, found something else in line 1, column 23");
        insta::assert_snapshot!(found("", "https://r/"), @"expected a docker `config.json`, found something else in line 1, column 0");
    }

    #[test]
    fn the_helper_of_a_registry_comes_before_the_store() {
        let helper = |text: &str, base: &str| {
            let helper = LoginFile::parse(text)?.helper(&url(base))?;
            Ok::<_, Error>(helper.map(|helper| helper.to_string()))
        };
        let both = r#"{"credHelpers":{"r:5000":"ecr","plain":""},"credsStore":"desk","auths":{"https://a":{}}}"#;
        for (base, expected) in [
            ("https://r:5000/", Some("docker-credential-ecr for r:5000")),
            ("https://r/", Some("docker-credential-desk for r")),
            ("https://a/", Some("docker-credential-desk for https://a")),
            ("https://plain/", None),
            (
                "https://registry-1.docker.io/",
                Some("docker-credential-desk for https://index.docker.io/v1/"),
            ),
        ] {
            assert_eq!(helper(both, base).unwrap().as_deref(), expected, "{base}");
        }
        assert_eq!(helper("{}", "https://r/").unwrap(), None);
        for name in ["../x", "a b", "a/b", "-", "é", "a;b"] {
            let text = format!(r#"{{"credsStore":"{name}"}}"#);
            let refused = helper(&text, "https://r/");
            assert_eq!(refused.is_err(), name != "-", "{name}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            text in "\\PC{0,60}",
            key in "(https?://)?[a-z.:/@\\[\\]]{0,20}",
            auth in "[A-Za-z0-9+/=]{0,24}",
        ) {
            found(&text, "https://registry.example:5000/");
            let entry = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}},"credsStore":"x"}}"#);
            for base in ["https://a/", "http://a:5000/", "https://registry-1.docker.io/"] {
                found(&entry, base);
                if let Ok(file) = LoginFile::parse(&entry) {
                    drop(file.helper(&url(base)));
                }
            }
        }
    }
}
