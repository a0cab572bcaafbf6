//! Where streams come from.

pub mod file;
pub mod live;
pub mod test;
