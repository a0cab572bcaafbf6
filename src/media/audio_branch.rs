//! The branch that converts a stream's sound to one channel of 16 kHz.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::elements::{make, make_appsink};
use super::ingest_state::IngestState;
use super::retiming::retime_sound;
use super::sound_reader::SoundReader;
use crate::error::{Error, Result};
use crate::packet::SAMPLE_RATE;

/// Buffers that may wait for a reader of sound.
const QUEUE: u32 = 16;

/// The appsinks of the views of sound. They wait outside the pipeline until there is sound, because
/// a sink that gets nothing would keep the stream from ending.
pub(super) struct AudioBranch {
    sinks: Vec<gst_app::AppSink>,
}

impl AudioBranch {
    /// The sinks and a reader for each.
    pub fn build(state: &Arc<IngestState>) -> Result<(Self, Vec<SoundReader>)> {
        let (mut sinks, mut readers) = (Vec::new(), Vec::new());
        for index in 0..state.options.sounds.len() {
            let sink = make_appsink(QUEUE)?;
            readers.push(SoundReader::new(index, sink.clone(), state));
            sinks.push(sink);
        }
        Ok((Self { sinks }, readers))
    }

    /// Whether sound is wanted and has not come yet: until then the sinks have no parent.
    pub fn is_awaited(&self) -> bool {
        self.sinks
            .first()
            .is_some_and(|sink| sink.parent().is_none())
    }

    /// Puts the branch behind `pad`. The pipeline may be running by then.
    pub fn attach(
        &self,
        pipeline: &gst::Pipeline,
        pad: &gst::Pad,
        state: &Arc<IngestState>,
    ) -> Result<()> {
        let unwired = |error: gst::glib::BoolError| {
            Error::bug("the branch of sound cannot be wired").because(error)
        };
        let (convert, resample) = (make("audioconvert")?, make("audioresample")?);
        let (filter, tee) = (make("capsfilter")?, make("tee")?);
        filter.set_property("caps", caps());
        let chain = [&convert, &resample, &filter, &tee];
        pipeline.add_many(chain).map_err(unwired)?;
        gst::Element::link_many(chain).map_err(unwired)?;
        let mut elements: Vec<gst::Element> = chain.into_iter().cloned().collect();
        for sink in &self.sinks {
            let (queue, sink) = (make("queue")?, sink.upcast_ref::<gst::Element>());
            pipeline.add_many([&queue, sink]).map_err(unwired)?;
            gst::Element::link_many([&tee, &queue, sink]).map_err(unwired)?;
            elements.extend([queue, sink.clone()]);
        }
        let entry = convert
            .static_pad("sink")
            .ok_or_else(|| Error::bug("audioconvert without sink pad"))?;
        let retimed = Arc::clone(state);
        entry.add_probe(
            gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
            move |_, info| retime_sound(&retimed, info),
        );
        // From the end to the beginning, and the source's pad last: what gets data must be running.
        for element in elements.iter().rev() {
            element.sync_state_with_parent().map_err(unwired)?;
        }
        pad.link(&entry)
            .map(drop)
            .map_err(|error| Error::external("decoded sound cannot be linked").because(error))
    }
}

fn caps() -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("channels", 1)
        .field("rate", SAMPLE_RATE as i32)
        .build()
}
