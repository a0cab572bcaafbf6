//! How commands write: to standard output for results, to standard error for problems.

use std::io::Write;
use std::process::ExitCode;

use crate::config::ReportStyle;
use crate::error::{Error, Result};

/// Prints to standard output; a reader that has gone is no error.
pub(super) fn print(text: &str) -> Result<ExitCode> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::external("cannot write to standard output").because(error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// How problems look on standard error.
pub(super) fn report_style() -> ReportStyle {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        ReportStyle::Fancy
    } else {
        ReportStyle::Plain
    }
}
