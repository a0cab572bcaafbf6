//! Every stage kind, one file each, and the table that lists them.

use crate::stage::StageKind;

/// Every stage kind.
pub const KINDS: &[&StageKind] = &[];
