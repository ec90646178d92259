//! nginx before a registry, as it stands before many.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::{PATIENCE, missing, write};

/// A proxy. It ends with the value.
#[derive(Debug)]
pub(crate) struct Nginx {
    server: Child,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

impl Nginx {
    /// Starts one and waits until it listens. `outside` and `inside` go around and into the location that passes requests on.
    pub(crate) fn start(upstream: SocketAddr, outside: &str, inside: &str) -> Self {
        // An address of its own: nobody else gets the port between the two lines.
        let address = TcpListener::bind("127.0.0.9:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let dir = TempDir::new().unwrap();
        let path = dir.path().display();
        let configuration = dir.path().join("nginx.conf");
        // Without a master there is one process, which is ended with its number.
        write(
            &configuration,
            format!(
                "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\n\
                 events {{}}\n\
                 http {{\n  access_log off;\n  \
                 client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n  \
                 fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n  \
                 {outside}\n  server {{\n    listen {address};\n    location / {{\n      {inside}\n      \
                 proxy_pass http://{upstream};\n      \
                 proxy_http_version 1.1;\n      proxy_set_header Host $http_host;\n    }}\n  }}\n}}\n"
            ),
        );
        let mut command = Command::new("/usr/sbin/nginx");
        command
            .arg("-e")
            .arg(dir.path().join("error.log"))
            .arg("-c")
            .arg(&configuration)
            .stderr(Stdio::null());
        let server = command
            .spawn()
            .unwrap_or_else(|error| missing("nginx-light", &command, &error));
        let nginx = Self {
            server,
            address,
            _dir: dir,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::yield_now();
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An error means that it is gone already.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
