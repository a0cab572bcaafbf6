//! Starts GStreamer and turns its log into tracing events, category as a field.

use std::sync::OnceLock;

use gstreamer as gst;

use crate::error::{Error, Result};
use crate::redact::redact;

/// Starts GStreamer once for the process; later calls repeat the first one's result. `GST_DEBUG`
/// sets what it logs (errors by default), tracing's filter for the target `gstreamer` what of it is
/// shown. What ends a stream comes as its error too, with what is done about it, so that without
/// `GST_DEBUG` GStreamer's own lines are details: a camera that is away would fill the log with
/// them at every try.
pub fn init() -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    STARTED.get_or_init(start).clone()
}

fn start() -> Result<()> {
    gst::init().map_err(|error| {
        Error::external("cannot start GStreamer")
            .because(error)
            .hint(
                "is libgstreamer1.0-0 with its plugins installed? `opusflow doctor` lists what is \
                 missing",
            )
    })?;
    let asked = std::env::var_os("GST_DEBUG").is_some();
    if !asked {
        gst::log::set_default_threshold(gst::DebugLevel::Error);
    }
    gst::log::remove_default_log_function();
    gst::log::add_log_function(
        move |category, level, _file, _function, _line, object, message| {
            let Some(text) = message.get() else { return };
            forward(
                category.name(),
                shown(level, asked),
                object.map(ToString::to_string),
                &text,
            );
        },
    );
    Ok(())
}

/// The level of a line of GStreamer's log; `asked` where the user wants to see that log.
fn shown(level: gst::DebugLevel, asked: bool) -> tracing::Level {
    match level {
        gst::DebugLevel::Error if asked => tracing::Level::ERROR,
        gst::DebugLevel::Warning if asked => tracing::Level::WARN,
        gst::DebugLevel::Info if asked => tracing::Level::INFO,
        gst::DebugLevel::Error
        | gst::DebugLevel::Warning
        | gst::DebugLevel::Fixme
        | gst::DebugLevel::Debug => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    }
}

fn forward(category: &str, level: tracing::Level, object: Option<String>, message: &str) {
    let object = object.unwrap_or_default();
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: "gstreamer", tracing::Level::$level, category, object, "{}", redact(message))
        };
    }
    match level {
        tracing::Level::ERROR => event!(ERROR),
        tracing::Level::WARN => event!(WARN),
        tracing::Level::INFO => event!(INFO),
        tracing::Level::DEBUG => event!(DEBUG),
        tracing::Level::TRACE => event!(TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_gstreamer_are_details_unless_its_log_is_asked_for() {
        assert_eq!(shown(gst::DebugLevel::Error, false), tracing::Level::DEBUG);
        assert_eq!(shown(gst::DebugLevel::Error, true), tracing::Level::ERROR);
        assert_eq!(shown(gst::DebugLevel::Log, true), tracing::Level::TRACE);
    }
}
