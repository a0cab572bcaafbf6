//! Logs to stderr: compact with colours on a terminal, JSON lines otherwise, and never through the
//! middle of a progress bar.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;

use indicatif::MultiProgress;
use parking_lot::RwLock;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::error::{Error, Result};

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level (`info`) or filter directives (`info,opusflow::media=debug`).
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
        }
    }
}

/// The installed logs.
#[derive(Clone, Default)]
pub struct Logs {
    bar: Arc<RwLock<Option<MultiProgress>>>,
}

impl Logs {
    /// Installs the process's subscriber, once. Crates that use `log` are carried over, and panics
    /// are logged instead of printed, so that one that is caught and counted does not tear the bar
    /// or the JSON.
    ///
    /// # Errors
    /// Config where the filter does not parse, bug where a subscriber is already installed.
    pub fn install(settings: &LogSettings) -> Result<Self> {
        let logs = Self::default();
        let terminal = io::stderr().is_terminal();
        let layer = layer(
            !terminal,
            terminal,
            Lines {
                bar: Arc::clone(&logs.bar),
                out: io::stderr,
            },
        );
        let subscriber =
            tracing_subscriber::registry().with(layer.with_filter(filter(&settings.filter)?));
        subscriber
            .try_init()
            .map_err(|error| Error::bug("logs are already set up").because(error))?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(logs)
    }

    /// While a bar is set, it is taken off the terminal for the moment a line is written.
    pub fn set_bar(&self, bar: Option<MultiProgress>) {
        *self.bar.write() = bar;
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("bar", &self.bar.read().is_some())
            .finish()
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without a message");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current()
        .name()
        .unwrap_or("unnamed")
        .to_owned();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(panic = message, place, thread, %backtrace, "panicked")
        }
        _ => tracing::error!(panic = message, place, thread, "panicked"),
    }
}

fn filter(directives: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(directives).map_err(|error| {
        Error::config(format!("log filter {directives:?} does not parse"))
            .because(error)
            .hint(
                "write a level (error, warn, info, debug, trace) or directives such as \
                 info,opusflow::media=debug",
            )
    })
}

/// Lines as JSON objects, or compact ones with or without `colours`.
fn layer<W>(json: bool, colours: bool, lines: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(colours && !json);
    match json {
        true => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
        false => layer.compact().with_timer(Clock).with_target(false).boxed(),
    }
}

/// The local time of day: on a terminal the date is known.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", jiff::ZonedDateTime::now().strftime("%H:%M:%S%.3f"))
    }
}

/// Hands each line to `out` in one piece, with the bar out of the way.
struct Lines<F> {
    bar: Arc<RwLock<Option<MultiProgress>>>,
    out: F,
}

struct Line<'a, F> {
    lines: &'a Lines<F>,
}

impl<F: Fn() -> W, W: Write> Write for Line<'_, F> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let write = || (self.lines.out)().write_all(text);
        let bar = self.lines.bar.read();
        match &*bar {
            Some(bar) => bar.suspend(write)?,
            None => write()?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.lines.out)().flush()
    }
}

impl<'a, F: Fn() -> W + 'a, W: Write> MakeWriter<'a> for Lines<F> {
    type Writer = Line<'a, F>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
    use parking_lot::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A terminal that writes `[clear]` and `[bar]` into the same place as the lines.
    #[derive(Debug)]
    struct Term(Sink);

    impl fmt::Debug for Sink {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Sink")
        }
    }

    impl Term {
        fn note(&self, word: &[u8]) -> io::Result<()> {
            self.0.0.lock().extend_from_slice(word);
            Ok(())
        }
    }

    impl TermLike for Term {
        fn width(&self) -> u16 {
            40
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, _: &str) -> io::Result<()> {
            self.note(b"[bar]")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            if text.trim().is_empty() {
                Ok(())
            } else {
                self.note(b"[bar]")
            }
        }
        fn clear_line(&self) -> io::Result<()> {
            self.note(b"[clear]")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, colours: bool, directives: &str, bar: Option<MultiProgress>) -> String {
        logged_into(Sink::default(), json, colours, directives, bar)
    }

    fn logged_into(
        sink: Sink,
        json: bool,
        colours: bool,
        directives: &str,
        bar: Option<MultiProgress>,
    ) -> String {
        let out = sink.clone();
        let lines = Lines {
            bar: Arc::new(RwLock::new(bar)),
            out: move || out.clone(),
        };
        let subscriber = tracing_subscriber::registry()
            .with(layer(json, colours, lines).with_filter(filter(directives).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(stage = "shots", frames = 3, "video_processed");
            tracing::debug!("not at info");
        });
        let text = sink.0.lock().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn json_lines_away_from_a_terminal() {
        let text = logged(true, false, "info", None);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["stage"], &line["frames"]),
            (&"video_processed".into(), &"shots".into(), &3.into())
        );
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn compact_on_a_terminal() {
        let text = logged(false, true, "debug", None);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains("video_processed") && text.contains('\u{1b}'),
            "{text}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
    }

    #[test]
    fn bar_is_taken_away_for_each_line_and_drawn_again() {
        let sink = Sink::default();
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(Term(
            sink.clone(),
        ))));
        let bar = multi.add(ProgressBar::new(10));
        bar.tick();
        sink.0.lock().clear();
        let text = logged_into(sink, false, false, "info", Some(multi));
        let at = |word: &str| {
            text.find(word)
                .unwrap_or_else(|| panic!("{word} in {text}"))
        };
        assert!(at("[clear]") < at("video_processed"), "{text}");
        assert!(text.rfind("[bar]") > text.find("video_processed"), "{text}");
        drop(bar);
    }

    #[test]
    fn wrong_filter_is_a_config_error() {
        let error = filter("opusflow=loud").expect_err("loud is no level");
        assert_eq!(error.kind(), crate::error::Kind::Config);
        assert!(error.to_string().contains("opusflow=loud"), "{error}");
    }
}
