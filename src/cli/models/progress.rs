//! How a pull goes: bars on a terminal, lines elsewhere; nothing where it shall be quiet.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::inference::hub::{Pulled, SkipReason, Step};
use crate::models::hub::HubId;

/// Pause between two lines about bytes, where there are no bars.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Names of files that a reason lists before it only counts them.
const MAX_LISTED: usize = 4;

/// What is shown of one pull.
pub(super) struct Progress {
    id: HubId,
    quiet: bool,
    /// None where standard error is no terminal.
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

struct State {
    /// Bytes of each file that are there.
    received: BTreeMap<String, u64>,
    bars: BTreeMap<String, ProgressBar>,
    total: ProgressBar,
    bytes: u64,
    last_line: Instant,
}

impl Progress {
    pub fn new(id: &HubId, quiet: bool) -> Self {
        let bars = (!quiet && io::stderr().is_terminal()).then(MultiProgress::new);
        let total = ProgressBar::hidden();
        let state = State {
            received: BTreeMap::new(),
            bars: BTreeMap::new(),
            total,
            bytes: 0,
            last_line: Instant::now(),
        };
        Self {
            id: id.clone(),
            quiet,
            bars,
            state: Mutex::new(state),
        }
    }

    pub fn step(&self, step: &Step<'_>) {
        match step {
            Step::Chosen {
                commit,
                files,
                bytes,
                left,
            } => {
                let short = commit.get(..7).unwrap_or(commit);
                self.say(&format!(
                    "{} is {short}: {files} files, {}",
                    self.id,
                    HumanBytes(*bytes)
                ));
                self.say_left_out(left);
                let mut state = self.state.lock();
                state.bytes = *bytes;
                state.total = self.add_bar("all", *bytes);
            }
            Step::Present { file, size } => self.set_position(file, *size),
            Step::Started { file, size, had } => {
                if *had > 0 {
                    self.say(&format!("{file}: {} are here already", HumanBytes(*had)));
                }
                let bar = self.add_bar(file, *size);
                bar.set_position(*had);
                bar.reset_eta();
                self.state.lock().bars.insert((*file).to_owned(), bar);
                self.set_position(file, *had);
            }
            Step::Received { file, at } => self.set_position(file, *at),
            Step::Retrying { error } => self.say(&format!("{error}; trying again")),
            Step::Waiting { file } => {
                self.say(&format!("{file}: another process fetches it, waiting"))
            }
            Step::Verified { file } => {
                let size = self
                    .state
                    .lock()
                    .received
                    .get(*file)
                    .copied()
                    .unwrap_or_default();
                self.remove_bar(file);
                self.say(&format!("{file}: {}, its hash is right", HumanBytes(size)));
            }
        }
    }

    /// Takes the bars off the terminal.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        std::mem::take(&mut state.bars)
            .into_values()
            .for_each(|bar| bar.finish_and_clear());
        state.total.finish_and_clear();
    }

    /// The last line.
    pub fn done(&self, pulled: &Pulled) {
        let what = if pulled.fetched == 0 {
            "was here".to_owned()
        } else {
            format!("is here, {} fetched", HumanBytes(pulled.fetched))
        };
        self.say(&format!("{} {what}", self.id));
    }

    fn say_left_out(&self, left: &[(SkipReason, Vec<String>)]) {
        for (why, files) in left.iter().filter(|(why, _)| *why != SkipReason::NotNeeded) {
            let shown: Vec<&str> = files.iter().take(MAX_LISTED).map(String::as_str).collect();
            let more = files.len().saturating_sub(MAX_LISTED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            self.say(&format!("left out, {why}: {}{more}", shown.join(", ")));
        }
    }

    fn set_position(&self, file: &str, at: u64) {
        let mut state = self.state.lock();
        match state.received.get_mut(file) {
            Some(there) => *there = at,
            None => drop(state.received.insert(file.to_owned(), at)),
        }
        let sum = state.received.values().sum();
        state.total.set_position(sum);
        if let Some(bar) = state.bars.get(file) {
            bar.set_position(at);
        }
        if self.bars.is_none() && state.last_line.elapsed() > LINE_INTERVAL {
            state.last_line = Instant::now();
            self.say(&format!(
                "{} of {}",
                HumanBytes(sum),
                HumanBytes(state.bytes)
            ));
        }
    }

    fn remove_bar(&self, file: &str) {
        if let Some(bar) = self.state.lock().bars.remove(file) {
            bar.finish_and_clear();
        }
    }

    fn add_bar(&self, name: &str, size: u64) -> ProgressBar {
        let Some(bars) = &self.bars else {
            return ProgressBar::hidden();
        };
        let style = ProgressStyle::with_template(
            "{prefix:<28!} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        let bar = bars.add(
            ProgressBar::new(size)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        );
        bar.set_prefix(name.to_owned());
        bar
    }

    /// A line on standard error, above the bars.
    fn say(&self, line: &str) {
        match &self.bars {
            _ if self.quiet => {}
            // Where a line cannot be shown there is nobody to tell.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}
