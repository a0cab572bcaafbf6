//! The progress bar: one line for each stream with position, frames a second and the fullest queue.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::pipeline::{QueueStatus, SessionStatus};
use crate::stage::Print;
use crate::telemetry::Logs;

/// Lines that are shown at most.
const MAX_LINES: usize = 8;

/// The bars of a run. Nothing is drawn when standard error is no terminal.
pub(super) struct Bars {
    multi: MultiProgress,
    shown: bool,
    lines: Mutex<HashMap<Arc<str>, Line>>,
    logs: Logs,
}

struct Line {
    bar: ProgressBar,
    frames: u64,
    at: Instant,
    rate: f64,
}

impl Bars {
    pub fn new(logs: Logs, quiet: bool) -> Self {
        let multi = MultiProgress::new();
        let shown = !quiet && io::stderr().is_terminal();
        if shown {
            logs.set_bar(Some(multi.clone()));
        }
        Self {
            multi,
            shown,
            lines: Mutex::default(),
            logs,
        }
    }

    /// Prints lines on standard output with the bars out of the way.
    pub fn printer(&self) -> Print {
        let write = |lines: &str| io::stdout().lock().write_all(lines.as_bytes());
        if !self.shown {
            return Arc::new(write);
        }
        let multi = self.multi.clone();
        Arc::new(move |lines| multi.suspend(|| write(lines)))
    }

    /// Shows how the streams stand.
    pub fn show(&self, sessions: &[SessionStatus]) {
        if !self.shown {
            return;
        }
        let mut lines = self.lines.lock();
        lines.retain(|stream, line| {
            let open = sessions.iter().any(|session| session.stream == *stream);
            if !open {
                line.bar.finish_and_clear();
            }
            open
        });
        for session in sessions.iter().take(MAX_LINES) {
            let line = lines
                .entry(Arc::clone(&session.stream))
                .or_insert_with(|| Line::new(&self.multi, session));
            line.show(session);
        }
    }

    /// Takes everything off the terminal.
    pub fn clear(&self) {
        self.lines
            .lock()
            .drain()
            .for_each(|(_, line)| line.bar.finish_and_clear());
        self.logs.set_bar(None);
    }
}

impl Line {
    fn new(multi: &MultiProgress, session: &SessionStatus) -> Self {
        let bar = match session.length {
            Some(length) => ProgressBar::new(length / 1_000_000),
            None => ProgressBar::no_length(),
        };
        let template = if session.length.is_some() {
            "{prefix} {wide_bar} {msg}"
        } else {
            "{prefix} {spinner} {wide_msg}"
        };
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let bar = multi.add(bar);
        bar.set_prefix(session.stream.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self {
            bar,
            frames: 0,
            at: Instant::now(),
            rate: 0.0,
        }
    }

    fn show(&mut self, session: &SessionStatus) {
        let frames = session
            .ledger
            .values()
            .map(|balance| balance.ingested)
            .max()
            .unwrap_or(0);
        let elapsed = self.at.elapsed().as_secs_f64();
        if elapsed > 1.0 {
            self.rate = frames.saturating_sub(self.frames) as f64 / elapsed;
            (self.frames, self.at) = (frames, Instant::now());
        }
        let position = session.position / 1_000_000;
        self.bar.set_position(position);
        let seconds = position / 1000;
        let mut text = format!("{}:{:02}", seconds / 60, seconds % 60);
        if let Some(length) = session.length.map(|length| length / 1_000_000_000) {
            text.push_str(&format!("/{}:{:02}", length / 60, length % 60));
        }
        text.push_str(&format!("  {:.0} fps", self.rate));
        let fill =
            |queue: &QueueStatus| queue.counts.frames as f64 / queue.settings.frames.max(1) as f64;
        let fullest = session
            .queues
            .iter()
            .max_by(|a, b| fill(a).total_cmp(&fill(b)));
        if let Some(queue) = fullest.filter(|queue| queue.counts.frames > 0) {
            let (held, most) = (queue.counts.frames, queue.settings.frames);
            text.push_str(&format!("  {} {held}/{most}", queue.edge));
        }
        self.bar.set_message(text);
    }
}
