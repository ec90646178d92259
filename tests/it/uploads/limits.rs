//! Registries, and proxies before them, that want requests of some size.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use hyper::Method;
use tempfile::TempDir;
use violetd::registry::{Client, NoUploads, Options};

use super::{Blob, CHUNK_BYTES, MIB, Notes, sizes};
use crate::support::{Auth, Behaviour, Distribution, TestRegistry, run, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_bodies_is_found_once_and_kept_to() {
    let behaviour = Behaviour {
        body_bytes_max: 10 * MIB,
        ..Behaviour::default()
    };
    let server = Distribution::start_as(behaviour).await;
    let client = Client::new(server.options()).unwrap();
    let notes = Notes::default();
    Blob::new(32 * MIB).send(&client, &notes).await;
    let requests = server.take_received();
    let refused = requests.iter().filter(|it| it.status == 413).count();
    assert_eq!(refused, 2, "{requests:?}");
    for size_bytes in [9 * MIB, 2 * CHUNK_BYTES] {
        Blob::new(size_bytes).send(&client, &notes).await;
    }
    let requests = server.take_received();
    assert!(requests.iter().all(|it| it.status != 413), "{requests:?}");
    assert_eq!(sizes(&requests, &Method::PATCH)[..3], [8, 1, 8]);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_as_large_as_the_registry_wants_them() {
    let behaviour = Behaviour {
        chunk_bytes_min: 100 * MIB,
        ..Behaviour::default()
    };
    let server = Distribution::start_as(behaviour).await;
    let client = Client::new(server.options()).unwrap();
    Blob::new(250 * MIB).send(&client, &NoUploads).await;
    let requests = server.take_received();
    assert_eq!(sizes(&requests, &Method::PATCH), [100, 100, 50]);
}

/// nginx as it stands before registries: it refuses bodies for their size.
pub(super) struct Nginx {
    server: Child,
    port: u16,
    _dir: TempDir,
}

impl Nginx {
    pub(super) fn start(upstream: SocketAddr, body_max: &str) -> Self {
        let dir = TempDir::new().unwrap();
        // Whoever takes it in the meantime makes nginx end and the test fail.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let path = dir.path().join("nginx.conf");
        let root = dir.path().display();
        // Without a master there is one process, which ends with its number.
        let configuration = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
             events {{}}\n\
             http {{\n  access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n  \
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n  \
             server {{ listen 127.0.0.1:{port}; client_max_body_size {body_max};\n    \
             location / {{ proxy_pass http://{upstream}; proxy_set_header Host $http_host; }} }}\n}}\n"
        );
        write(&path, configuration);
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(dir.path().join("error.log"));
        command.arg("-c").arg(&path).stdout(Stdio::null());
        // Says what is wrong with the configuration, if anything is.
        run(
            "nginx-light",
            Command::new("/usr/sbin/nginx")
                .arg("-t")
                .arg("-c")
                .arg(&path)
                .arg("-e")
                .arg(dir.path().join("error.log")),
        );
        Self {
            server: command.spawn().unwrap(),
            port,
            _dir: dir,
        }
    }

    pub(super) fn options(&self, options: Options) -> Options {
        let mut options = options;
        options.address = format!("127.0.0.1:{}", self.port);
        // It may not listen yet.
        options.retries.attempts_max = 1000;
        options
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_size_pass_a_real_proxy_that_caps_bodies() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = Nginx::start(registry.address(), "10m");
    let client = Client::new(nginx.options(registry.options())).unwrap();
    let notes = Notes::default();
    for size_bytes in [40 * MIB, 2 * CHUNK_BYTES] {
        let blob = Blob::new(size_bytes);
        blob.send(&client, &notes).await;
        assert_eq!(blob.found(&client).await, Some(size_bytes));
    }
    assert_eq!(notes.len(), 0);
}
