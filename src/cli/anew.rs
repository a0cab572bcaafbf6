//! How torch's threads wait for one another. OpenMP's library reads that from the environment when
//! it is loaded, which is before `main`: where the pipeline wants it otherwise, the process begins
//! anew, once, before it has done anything.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// OpenMP's variable. Where the environment has it already, that stands.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Whether it is settled how threads wait.
pub(super) fn is_settled() -> bool {
    std::env::var_os(POLICY).is_some()
}

/// Begins the process anew, with the same arguments, with threads that sleep while they wait. Only
/// an error returns.
pub(super) fn with_sleeping_threads() -> io::Error {
    let mut arguments = std::env::args_os();
    // By its own name, under which `top` and `pkill` then know it.
    let binary = std::env::current_exe().ok().filter(|path| path.is_file());
    let mut command = Command::new(binary.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(POLICY, "passive").exec()
}
