//! A service of a test's own, which it may kill, started as `ops/test` starts the shared ones.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{folder, root};

/// A server on a free port; it goes with the test.
pub struct Service {
    name: &'static str,
    folder: TempDir,
    port: u16,
}

impl Service {
    pub fn start(name: &'static str) -> Self {
        let service = Self {
            name,
            folder: folder(),
            port: free_port(),
        };
        service.act("start");
        service
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.act("kill");
    }

    fn act(&self, action: &str) {
        let mut command = Command::new(root().join("ops/service"));
        command
            .args([self.name, action, "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path());
        assert!(
            command.stdin(Stdio::null()).status().unwrap().success(),
            "{} does not {action}",
            self.name
        );
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.act("stop");
        } else {
            let mut command = Command::new(root().join("ops/service"));
            let _ = command
                .args([self.name, "kill", "--dir"])
                .arg(self.folder.path())
                .status();
        }
    }
}

/// A port that nobody listens on now, below those that the system hands out to clients.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
