//! WebVTT (W3C "WebVTT: The Web Video Text Tracks Format"): captions and transcripts as cues that
//! players show.

use crate::packet::{Nanos, Span};

/// What a file begins with.
pub(super) const HEADER: &str = "WEBVTT\n\n";

/// One cue with its empty line.
pub(super) fn cue(span: Span, text: &str) -> String {
    let text: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let text = text
        .join("\n")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace("-->", "--&gt;");
    format!("{} --> {}\n{text}\n\n", clock(span.start), clock(span.end))
}

fn clock(nanos: Nanos) -> String {
    let millis = nanos / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        millis / 3_600_000,
        millis / 60_000 % 60,
        millis / 1000 % 60,
        millis % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cue_cannot_break_the_file() {
        let span = Span::new(3_723_004_000_000, 3_725_000_000_000);
        assert_eq!(
            cue(span, "a <b> & c\n\n--> d"),
            "01:02:03.004 --> 01:02:05.000\na &lt;b> &amp; c\n--&gt; d\n\n"
        );
    }
}
