//! The file that `docker login` and `podman login` write: text to the login of a registry, and to the helper that knows it.
//!
//! Whatever is wrong with it, no message has a part of a secret. No helper is run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use url::Url;
use violetd::base::Chain;
use violetd::registry::{Login, LoginFile};
use violetd_fuzz::check_message;

/// Registries that files are asked for: with and without TLS, port, brackets, and the one with several names.
const BASES: [&str; 5] = [
    "https://registry.example/",
    "http://registry.example:5000/",
    "https://[::1]:5000/",
    "https://192.0.2.1/",
    "https://registry-1.docker.io/",
];

fuzz_target!(|text: &str| {
    let file = match LoginFile::parse(text) {
        Ok(file) => file,
        Err(error) => return check_message(&Chain(&error)),
    };
    assert_eq!(format!("{file:?}"), "LoginFile { .. }");
    for base in BASES {
        let base: Url = base.parse().expect("a URL");
        match file.login(&base) {
            Ok(Some(Login::Password(credentials))) => {
                assert!(!credentials.username.is_empty(), "a password of nobody");
            }
            Ok(Some(Login::IdentityToken(token))) => assert!(!token.expose().is_empty()),
            Ok(None) => {}
            Err(error) => check_message(&Chain(&error)),
        }
        match file.helper(&base) {
            Ok(Some(helper)) => {
                let shown = helper.to_string();
                let program = shown.split(' ').next().expect("a word");
                assert!(program.starts_with("docker-credential-"), "{shown:?}");
                assert!(!program.contains('/'), "{shown:?} leads elsewhere");
            }
            Ok(None) => {}
            Err(error) => check_message(&Chain(&error)),
        }
        for key in file.namespaces(&base) {
            assert!(key.contains('/'), "{key:?} is for the whole registry");
        }
    }
});
