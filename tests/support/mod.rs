//! What the end-to-end tests share: the built binary at work, the services that `ops/test` names in
//! the environment, programs that nobody here wrote, and films made for a test.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

pub mod film;
#[allow(
    dead_code,
    reason = "the unit tests of the hub's client use other parts of it"
)]
pub mod hub;
pub mod live;
pub mod pipeline;
pub mod records;
pub mod service;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub use live::{Live, Run};

/// The variable that `ops/test` exports; a test without its service fails.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by ops/test"))
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A new folder inside the one that goes with `ops/test`: what a `static` keeps is never dropped.
pub fn folder() -> TempDir {
    TempDir::new_in(env("OPUSFLOW_TEST_DIR")).unwrap()
}

/// A word that no other run uses.
pub fn unique(word: &str) -> String {
    format!("{word}-{:08x}", rand::random::<u32>())
}

/// A folder that goes with the test, and what is done in it.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: folder() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with these arguments, in this folder.
    pub fn opusflow<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opusflow"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
            .env("OPUSFLOW_MODELS", models())
            .env_remove("RUST_BACKTRACE")
            .env_remove("OMP_WAIT_POLICY");
        command
    }

    /// Runs the binary to its end.
    pub fn call<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        Live::spawn(self.opusflow(arguments)).wait()
    }

    /// Runs a pipeline file to its end, with further arguments.
    pub fn run(&self, pipeline: &Path, more: &[&str]) -> Run {
        self.start(pipeline, more).wait()
    }

    /// Starts a pipeline file, with further arguments.
    pub fn start(&self, pipeline: &Path, more: &[&str]) -> Live {
        let mut command = self.opusflow(["run", "--quiet"]);
        command.arg(pipeline).args(more);
        Live::spawn(command)
    }
}

/// The model folders.
pub fn models() -> String {
    std::env::var("OPUSFLOW_MODELS").unwrap_or_else(|_| root().join("models").display().to_string())
}

/// Runs a Python script of the tests and reads the JSON that it prints, a value a line.
pub fn python<S: AsRef<std::ffi::OsStr>>(
    script: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Vec<Value> {
    let mut command = Command::new(env("OPUSFLOW_PYTHON"));
    command.arg(root().join(script)).args(arguments);
    json_lines(&output(command))
}

/// What a program printed; it must end well.
pub fn output(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{shown}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A JSON value a line.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
