//! `[verify]`, and what drop folders say besides: whose signatures are trusted, and how far.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::choice::choice;
use super::error::{Flaw, Problem};
use super::sections::{absolute, out_of_range};
use super::settings::VerifySettings;
use crate::base::ByteCount;

/// Hex digits of an OpenPGP fingerprint: version 4 (RFC 4880) and version 6 (RFC 9580).
const FINGERPRINT_DIGITS: [usize; 2] = [40, 64];

choice! {
    /// When the key of a signer must be valid.
    pub enum SignerValidity {
        /// When it signed.
        WhenSigned = "when-signed",
        /// When it signed, and now.
        Now = "now",
    }
}

/// `[verify]`: whose signatures are trusted. Of the limits, what is absent is the default of the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Files of OpenPGP certificates, or folders of such files.
    pub keyring: Vec<PathBuf>,
    /// Fingerprints in upper case without spaces. Empty: every certificate of the keyring may sign.
    pub signers: Vec<String>,
    /// When the key of a signer must be valid.
    pub signer_validity: SignerValidity,
    /// Bytes of one sidecar.
    pub sidecar_bytes_max: Option<ByteCount>,
    /// Signatures in one sidecar.
    pub sidecar_signatures_max: Option<u64>,
    /// Lines of one checksum file.
    pub sidecar_lines_max: Option<u64>,
    /// Bytes of one file of certificates.
    pub keyring_bytes_max: Option<ByteCount>,
    /// Certificates of one keyring.
    pub keyring_certificates_max: Option<u64>,
}

impl Verify {
    pub(super) fn read(settings: VerifySettings) -> Result<Self, Flaw> {
        let bytes = |bytes: Option<ByteCount>| bytes.map(|bytes| bytes.0);
        for (key, limit) in [
            ("sidecar_bytes_max", bytes(settings.sidecar_bytes_max)),
            ("sidecar_signatures_max", settings.sidecar_signatures_max),
            ("sidecar_lines_max", settings.sidecar_lines_max),
            ("keyring_bytes_max", bytes(settings.keyring_bytes_max)),
            (
                "keyring_certificates_max",
                settings.keyring_certificates_max,
            ),
        ] {
            if limit == Some(0) {
                return Err(out_of_range(format!("verify.{key}"), "at least 1", "0"));
            }
        }
        Ok(Self {
            keyring: keyring("verify.keyring", settings.keyring)?,
            signers: signers("verify.signers", &settings.signers)?,
            signer_validity: settings.signer_validity,
            sidecar_bytes_max: settings.sidecar_bytes_max,
            sidecar_signatures_max: settings.sidecar_signatures_max,
            sidecar_lines_max: settings.sidecar_lines_max,
            keyring_bytes_max: settings.keyring_bytes_max,
            keyring_certificates_max: settings.keyring_certificates_max,
        })
    }
}

/// Reads a list of files and folders with certificates.
pub(super) fn keyring(key: &str, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, Flaw> {
    paths
        .into_iter()
        .enumerate()
        .map(|(index, path)| absolute(format!("{key}[{index}]"), path))
        .collect()
}

/// Reads a list of fingerprints.
pub(super) fn signers(key: &str, texts: &[String]) -> Result<Vec<String>, Flaw> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            fingerprint(text).ok_or_else(|| {
                let text =
                    format!("expected a whole fingerprint, 40 or 64 hex digits, found `{text}`");
                Flaw::new(format!("{key}[{index}]"), Problem::Value(text))
            })
        })
        .collect()
}

/// Reads how many signers must have signed: no more than may.
pub(super) fn signatures_min(key: &str, number: u32, signers: &[String]) -> Result<u32, Flaw> {
    let different: BTreeSet<&String> = signers.iter().collect();
    let max = u32::try_from(different.len()).unwrap_or(u32::MAX);
    if number == 0 {
        return Err(out_of_range(key, "at least 1", "0"));
    }
    if max > 0 && number > max {
        let expected = format!("at most {max}, as many as there are allowed signers");
        return Err(out_of_range(key, expected, number.to_string()));
    }
    Ok(number)
}

/// Returns a fingerprint in upper case without spaces. Short key ids are no fingerprints: others can make a key with
/// the same one.
fn fingerprint(text: &str) -> Option<String> {
    let digits: String = text.split_whitespace().collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    let is_good = FINGERPRINT_DIGITS.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_good.then(|| digits.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::base::Chain;
    use crate::config::Config;

    const ONE: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
    const TWO: &str = "89ABCDEF0123456789ABCDEF0123456789ABCDEF";

    fn parse(verify: &str, drop: &str) -> Result<Config, String> {
        let text = format!(
            "verify = {{{verify}}}\n[[drop]]\npath = '/drop'\n{drop}\n[[target]]\nname = 'a'\n\
             role = 'primary'\nregistry = {{address = 'registry.example', no_auth = true}}\n"
        );
        Config::parse(Path::new("violetd.toml"), &text, std::iter::empty())
            .map_err(|error| Chain(&error).to_string())
    }

    #[test]
    fn drop_folders_have_their_own_signers_or_those_of_all() {
        let common = format!("keyring = ['/keys'], signers = ['{ONE}']");
        let config = parse(&common, "").unwrap();
        assert_eq!(config.drops[0].keyring, [Path::new("/keys")]);
        assert_eq!(config.drops[0].signers, [ONE]);
        assert_eq!(config.drops[0].signatures_min, 1);
        let own = format!("keyring = ['/own']\nsigners = ['{ONE}', '{TWO}']\nsignatures_min = 2");
        let config = parse(&common, &own).unwrap();
        assert_eq!(config.drops[0].keyring, [Path::new("/own")]);
        assert_eq!(config.drops[0].signers, [ONE, TWO]);
        assert_eq!(config.drops[0].signatures_min, 2);
        // An empty list is a list: everybody in the keyring.
        let config = parse(&common, "signers = []\nsignatures_min = 3").unwrap();
        assert_eq!(config.drops[0].signers, [""; 0]);
    }

    #[test]
    fn what_nobody_could_fulfil_is_refused() {
        let shown = |verify: &str, drop: &str| parse(verify, drop).unwrap_err();
        insta::assert_snapshot!(shown("", "signatures_min = 0"), @"violetd.toml:4: `drop[0].signatures_min`: expected at least 1, found 0");
        insta::assert_snapshot!(shown(&format!("signers = ['{ONE}']"), "signatures_min = 2"), @"violetd.toml:4: `drop[0].signatures_min`: expected at most 1, as many as there are allowed signers, found 2");
        insta::assert_snapshot!(shown("", &format!("signers = ['{ONE}', '{}']\nsignatures_min = 2", ONE.to_lowercase())), @"violetd.toml:5: `drop[0].signatures_min`: expected at most 1, as many as there are allowed signers, found 2");
        insta::assert_snapshot!(shown("", "signers = ['0123']"), @"violetd.toml:4: `drop[0].signers[0]`: expected a whole fingerprint, 40 or 64 hex digits, found `0123`");
        insta::assert_snapshot!(shown("", "keyring = ['keys']"), @"violetd.toml:4: `drop[0].keyring[0]`: expected an absolute path without `..`, found `keys`");
        insta::assert_snapshot!(shown("signer_validity = 'later'", ""), @"violetd.toml:1: `verify.signer_validity`: expected one of `when-signed`, `now`, found `later`");
        insta::assert_snapshot!(shown("sidecar_bytes_max = 0", ""), @"violetd.toml:1: `verify.sidecar_bytes_max`: expected at least 1, found 0");
        insta::assert_snapshot!(shown("keyring_certificates_max = 0", ""), @"violetd.toml:1: `verify.keyring_certificates_max`: expected at least 1, found 0");
    }
}
