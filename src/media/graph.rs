//! The GStreamer pipeline of one stream: a source, what makes whole frames of fields, the probe that
//! keeps its time, a tee, and a branch a view.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::audio_branch::AudioBranch;
use super::elements::make;
use super::ingest_state::IngestState;
use super::retiming::retime_pictures;
use super::sound_reader::SoundReader;
use super::uri::MediaSource;
use super::view_reader::ViewReader;
use super::{test_source, uri_source, view_branch};
use crate::error::{Error, Result};

/// A pipeline that has not been started, and the reading ends of its views.
pub(super) struct Graph {
    pub pipeline: gst::Pipeline,
    /// One for each of the options' views, in their order.
    pub views: Vec<ViewReader>,
    /// One for each of the options' views of sound, in their order.
    pub sounds: Vec<SoundReader>,
}

/// Builds the pipeline of `source` with one reader per view of pictures and of sound.
pub(super) fn build(source: &MediaSource, state: &Arc<IngestState>) -> Result<Graph> {
    let pipeline = gst::Pipeline::new();
    let tee = make("tee")?;
    // Where only sound is read there is no branch behind the tee.
    tee.set_property("allow-not-linked", true);
    pipeline
        .add(&tee)
        .map_err(|error| Error::bug("a pipeline takes no tee").because(error))?;
    let tee_entry = sink_pad(&tee)?;
    // Before the tee, so that every view sees the same pts. One streaming thread pushes into the
    // tee at a time: it holds the pad's stream lock while the probe runs.
    let retimed = Arc::clone(state);
    tee_entry.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
        move |_, info| retime_pictures(&retimed, info),
    );
    let (audio, sounds) = AudioBranch::build(state)?;
    match source {
        MediaSource::Test(test) => test_source::add(&pipeline, &tee, test, state, &audio)?,
        MediaSource::File(_, uri) | MediaSource::Remote(uri) => {
            let entry = if state.options.deinterlace {
                deinterlacer(&pipeline, &tee)?
            } else {
                tee_entry
            };
            uri_source::add(&pipeline, &entry, uri, state, audio)?
        }
    }
    let views = (0..state.options.views.len())
        .map(|index| view_branch::add(&pipeline, &tee, index, state))
        .collect::<Result<_>>()?;
    Ok(Graph {
        pipeline,
        views,
        sounds,
    })
}

/// Adds what weaves no fields of different times into one frame, before `tee`; its way in.
/// Progressive frames pass it untouched.
fn deinterlacer(pipeline: &gst::Pipeline, tee: &gst::Element) -> Result<gst::Pad> {
    let deinterlace = make("deinterlace")?;
    deinterlace.set_property_from_str("mode", "auto");
    // One frame for two fields, as many as the film has: the upper field with the lines between
    // interpolated. What looks at neighbours (yadif, greedyh) makes up frames at the ends and
    // shifts times by one, in GStreamer 1.22.
    deinterlace.set_property_from_str("fields", "top");
    deinterlace.set_property_from_str("method", "linear");
    let wired = pipeline
        .add(&deinterlace)
        .and_then(|()| deinterlace.link(tee));
    wired.map_err(|error| Error::bug("the deinterlacer cannot be wired").because(error))?;
    sink_pad(&deinterlace)
}

fn sink_pad(element: &gst::Element) -> Result<gst::Pad> {
    let missing = || Error::bug(format!("{} without sink pad", element.name()));
    element.static_pad("sink").ok_or_else(missing)
}
