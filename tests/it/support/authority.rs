//! Certificates, by the `openssl` tool.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::run;

/// An authority that issues certificates for servers and clients.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: TempDir,
}

/// A certificate and its key, in PEM. Lives as long as its authority.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The file with the certificate.
    pub(crate) certificate: PathBuf,
    /// The file with the private key.
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes a key and a certificate that signs others.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        run(
            "openssl",
            openssl(dir.path())
                .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
                .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
                .args(["-keyout", "authority.key", "-out", "authority.pem"])
                .args(["-subj", "/CN=authority of the tests"]),
        );
        Self { dir }
    }

    /// Returns the authority's certificate in PEM: what a client must trust.
    pub(crate) fn pem(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// Returns the file with the authority's certificate.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Issues a certificate for a DNS name.
    pub(crate) fn issue(&self, name: &str) -> Certificate {
        self.issue_for(name, &format!("DNS:{name}"))
    }

    /// Issues a certificate for an IP address.
    pub(crate) fn issue_for_ip(&self, address: IpAddr) -> Certificate {
        self.issue_for("address", &format!("IP:{address}"))
    }

    fn issue_for(&self, name: &str, subject: &str) -> Certificate {
        let file = |suffix: &str| format!("{name}.{suffix}");
        run(
            "openssl",
            openssl(self.dir.path())
                .args(["req", "-newkey", "ec", "-nodes"])
                .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
                .args(["-keyout", &file("key"), "-out", &file("csr")])
                .args(["-subj", &format!("/CN={name}")])
                .args(["-addext", &format!("subjectAltName={subject}")]),
        );
        run(
            "openssl",
            openssl(self.dir.path())
                .args(["x509", "-req", "-days", "2", "-copy_extensions", "copy"])
                .args(["-CA", "authority.pem", "-CAkey", "authority.key"])
                .args(["-in", &file("csr"), "-out", &file("pem")]),
        );
        Certificate {
            certificate: self.dir.path().join(file("pem")),
            key: self.dir.path().join(file("key")),
        }
    }
}

/// Returns the tool, to be run in `dir`.
pub(super) fn openssl(dir: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir);
    command
}
