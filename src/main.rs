//! The `opusflow` binary.

fn main() -> std::process::ExitCode {
    opusflow::cli::main()
}
