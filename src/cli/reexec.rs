//! How torch's threads wait for one another. OpenMP's library reads that from the environment when
//! it is loaded, which is before `main`: where the pipeline wants it otherwise, the process executes
//! its own binary again, once, before it has done anything.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// OpenMP's variable. Where the environment has it already, that stands.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Whether the environment says how threads wait: then the process runs as it was started, or was
/// executed again already.
pub(super) fn wait_policy_set() -> bool {
    std::env::var_os(POLICY).is_some()
}

/// Executes the binary again in place of this process, with the same arguments, with threads that
/// sleep while they wait. Only an error returns.
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
