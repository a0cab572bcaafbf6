//! What the benches share: which rounds to run, and the line of JSON that each figure becomes.

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// `--round N` asks for that round alone; without it there are seven.
pub fn rounds() -> RangeInclusive<usize> {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--round")
        .skip(1);
    match arguments
        .next()
        .map(|number| number.parse().expect("`--round` takes a number"))
    {
        Some(round) => round..=round,
        None => 1..=7,
    }
}

/// Prints `value` of `variant` in round `run`.
pub fn figure(bench: &str, variant: &str, run: usize, value: f64, unit: &str) {
    println!(
        r#"{{"bench":"{bench}","variant":"{variant}","run":{run},"value":{value},"unit":"{unit}"}}"#
    );
}

/// Where a bench and its peer in another process leave what they share, if one runs beside it.
#[allow(dead_code, reason = "not every bench has a peer in another process")]
pub fn shared() -> Option<PathBuf> {
    std::env::var_os("BENCH_SHARED").map(PathBuf::from)
}

/// The sample film, or the one that `BENCH_FILM` names.
#[allow(dead_code, reason = "not every bench reads it")]
pub fn film() -> String {
    std::env::var("BENCH_FILM").unwrap_or_else(|_| "films/wannaworktogether.mp4".to_owned())
}
