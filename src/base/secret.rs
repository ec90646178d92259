//! Secrets that cannot be printed by mistake.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// A password or token. `Debug` shows `***`; there is no `Display`; memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of a secret.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// Returns the secret, to be put on the wire and nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
