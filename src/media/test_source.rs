//! GStreamer's own test pictures and, where sound is wanted, a tone beside them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::audio_branch::AudioBranch;
use super::elements::make;
use super::ingest_state::IngestState;
use super::uri::TestSource;
use crate::error::{Error, Result};

/// Adds the pictures that `test` describes before `tee`, and a tone where sound is wanted.
///
/// # Errors
/// `config` for a pattern that videotestsrc does not know, `external` for pictures above the limit.
pub(super) fn add(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    test: &TestSource,
    state: &Arc<IngestState>,
    audio: &AudioBranch,
) -> Result<()> {
    let source = make("videotestsrc")?;
    let known = source
        .find_property("pattern")
        .and_then(|property| gst::glib::EnumClass::with_type(property.value_type()));
    if known.is_none_or(|patterns| patterns.value_by_nick(&test.pattern).is_none()) {
        return Err(
            Error::config(format!("test://: unknown pattern `{}`", test.pattern))
                .hint("known are those of videotestsrc: ball, smpte, snow, ..."),
        );
    }
    if !state.admits(test.size.0, test.size.1) {
        return Err(state
            .failure
            .borrow()
            .clone()
            .unwrap_or_else(|| Error::bug("refused without reason")));
    }
    source.set_property_from_str("pattern", &test.pattern);
    source.set_property("is-live", test.live);
    if let Some(frames) = test.frames {
        source.set_property("num-buffers", frames as i32);
    }
    let filter = make("capsfilter")?;
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", test.size.0 as i32)
        .field("height", test.size.1 as i32)
        .field(
            "framerate",
            gst::Fraction::new(test.fps.num as i32, test.fps.den as i32),
        );
    filter.set_property("caps", caps.build());
    *state.codec.lock() = Some("raw".to_owned());
    let wired = pipeline
        .add_many([&source, &filter])
        .and_then(|()| gst::Element::link_many([&source, &filter, tee]));
    wired.map_err(|error| Error::bug("the test source cannot be wired").because(error))?;
    if audio.is_awaited() {
        add_tone(pipeline, test, state, audio)
    } else {
        Ok(())
    }
}

/// A tone as long as the test pictures.
fn add_tone(
    pipeline: &gst::Pipeline,
    test: &TestSource,
    state: &Arc<IngestState>,
    audio: &AudioBranch,
) -> Result<()> {
    const SAMPLES: u64 = 480;
    const RATE: u64 = 48_000;
    let filter = make("capsfilter")?;
    filter.set_property(
        "caps",
        gst::Caps::builder("audio/x-raw")
            .field("rate", RATE as i32)
            .build(),
    );
    let source = make("audiotestsrc")?;
    source.set_property("is-live", test.live);
    source.set_property("samplesperbuffer", SAMPLES as i32);
    if let Some(frames) = test.frames {
        let samples =
            u64::from(frames) * u64::from(test.fps.den) * RATE / u64::from(test.fps.num.max(1));
        source.set_property(
            "num-buffers",
            i32::try_from(samples.div_ceil(SAMPLES)).unwrap_or(i32::MAX),
        );
    }
    let wired = pipeline
        .add_many([&source, &filter])
        .and_then(|()| source.link(&filter));
    wired.map_err(|error| Error::bug("the test tone cannot be wired").because(error))?;
    let pad = filter
        .static_pad("src")
        .ok_or_else(|| Error::bug("a capsfilter without src pad"))?;
    state.has_audio.store(true, Ordering::Release);
    audio.attach(pipeline, &pad, state)
}
