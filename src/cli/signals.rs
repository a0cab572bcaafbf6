//! The signals of a run: the first SIGTERM or SIGINT stops it, the second to end at once; SIGUSR1
//! asks it to give memory back. They are received on a thread of their own from the first moment
//! on, so that one that comes while libraries start and models load does not kill the process at
//! once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// What signals have asked of the process so far.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    /// SIGTERM or SIGINT came.
    pub stop: CancellationToken,
    /// Another one came.
    pub force: CancellationToken,
    /// SIGUSR1 came.
    pub reclaim: Arc<Notify>,
}

impl Signals {
    /// Starts the thread that listens. From here on SIGTERM and SIGINT no longer kill the process.
    ///
    /// # Errors
    /// External where the system refuses a handler or the thread.
    pub fn listen() -> Result<Self> {
        let cannot_listen =
            |error: std::io::Error| Error::external("cannot listen for signals").because(error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(cannot_listen)?;
        let (mut term, mut int, mut user) = {
            let _inside = runtime.enter();
            let listen_for = |kind| signal(kind).map_err(cannot_listen);
            (
                listen_for(SignalKind::terminate())?,
                listen_for(SignalKind::interrupt())?,
                listen_for(SignalKind::user_defined1())?,
            )
        };
        let signals = Self {
            stop: CancellationToken::new(),
            force: CancellationToken::new(),
            reclaim: Arc::default(),
        };
        let Self {
            stop,
            force,
            reclaim,
        } = signals.clone();
        let listen = async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = user.recv() => {
                        reclaim.notify_one();
                        continue;
                    }
                }
                if stop.is_cancelled() {
                    force.cancel()
                } else {
                    stop.cancel()
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(listen))
            .map_err(cannot_listen)?;
        Ok(signals)
    }
}
