//! What a pull reports while it runs.

use super::selection::SkipReason;
use crate::error::Error;

/// What happens during a pull, in order for each file.
#[derive(Debug)]
pub enum Step<'a> {
    /// The hub has said what there is.
    Chosen {
        /// The commit that the revision is.
        commit: &'a str,
        /// Files that make up the model.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// The files that are left alone, by the reason.
        left: &'a [(SkipReason, Vec<String>)],
    },
    /// A file is there already.
    Present {
        /// Its path in the repository.
        file: &'a str,
        /// Its size.
        size: u64,
    },
    /// A file is being fetched.
    Started {
        /// Its path in the repository.
        file: &'a str,
        /// Its size.
        size: u64,
        /// Bytes of it that an earlier pull left.
        had: u64,
    },
    /// More of it came.
    Received {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes of it that are there now.
        at: u64,
    },
    /// It broke and will be tried again.
    Retrying {
        /// What went wrong.
        error: &'a Error,
    },
    /// Another process fetches it; this one waits.
    Waiting {
        /// Its path in the repository.
        file: &'a str,
    },
    /// It is there, and its hash is right.
    Verified {
        /// Its path in the repository.
        file: &'a str,
    },
}

/// Is called with each step, from any of the downloads.
pub type Watch<'a> = &'a (dyn Fn(Step<'_>) + Sync);
