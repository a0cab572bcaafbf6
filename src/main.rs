//! The `opusflow` binary.

fn main() {}
