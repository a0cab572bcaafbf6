//! A checked pipeline: spawned, run, drained.
