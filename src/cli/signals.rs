//! The signals of a run: the first tells it to stop, the second to end at once. They are heard on a thread of their own from the first moment
//! on, so that one that comes while libraries start and models load is no sudden death.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// What the process has been told so far.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    /// SIGTERM or SIGINT came.
    pub stop: CancellationToken,
    /// Another one came.
    pub force: CancellationToken,
}

impl Signals {
    /// From here on SIGTERM and SIGINT end the process in order only.
    pub fn listen() -> Result<Self> {
        let deaf = |error: std::io::Error| Error::external("signals cannot be heard").because(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(deaf)?;
        let (mut term, mut int) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate()).map_err(deaf)?, signal(SignalKind::interrupt()).map_err(deaf)?)
        };
        let signals = Self { stop: CancellationToken::new(), force: CancellationToken::new() };
        let Self { stop, force } = signals.clone();
        let listen = async move {
            for token in [stop, force] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                token.cancel();
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen)).map_err(deaf)?;
        Ok(signals)
    }
}
