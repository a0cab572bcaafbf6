//! Starts GStreamer and turns its log into tracing events, category as a field.

use std::sync::OnceLock;

use gstreamer as gst;

use super::uri::redact;
use crate::error::{Error, Result};

/// Starts GStreamer once for the process; later calls repeat the first one's result. `GST_DEBUG` sets what it logs (errors by default),
/// tracing's filter for
/// the target `gstreamer` what of it is shown.
pub fn init() -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    STARTED.get_or_init(start).clone()
}

fn start() -> Result<()> {
    gst::init().map_err(|error| {
        Error::external("cannot start GStreamer")
            .because(error)
            .hint("is libgstreamer1.0-0 with its plugins installed? `opusflow doctor` lists what is missing")
    })?;
    if std::env::var_os("GST_DEBUG").is_none() {
        gst::log::set_default_threshold(gst::DebugLevel::Error);
    }
    gst::log::remove_default_log_function();
    gst::log::add_log_function(|category, level, _file, _function, _line, object, message| {
        let Some(text) = message.get() else { return };
        forward(category.name(), level, object.map(ToString::to_string), &text);
    });
    Ok(())
}

fn forward(category: &str, level: gst::DebugLevel, object: Option<String>, message: &str) {
    let object = object.unwrap_or_default();
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: "gstreamer", tracing::Level::$level, category, object, "{}", redact(message))
        };
    }
    match level {
        gst::DebugLevel::Error => event!(ERROR),
        gst::DebugLevel::Warning => event!(WARN),
        gst::DebugLevel::Info => event!(INFO),
        gst::DebugLevel::Fixme | gst::DebugLevel::Debug => event!(DEBUG),
        _ => event!(TRACE),
    }
}
