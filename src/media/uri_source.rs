//! Whatever `uridecodebin` can read: it takes the source apart, and of the elementary streams that
//! it exposes one of pictures and one of sound are decoded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::audio_branch::AudioBranch;
use super::element_settings::configure;
use super::elements::{DISCARD, link_fakesink, make};
use super::ingest_state::IngestState;
use super::stream_selection::{Candidate, Media, choose};
use crate::error::{Error, Result};

/// Adds what reads `uri`: one of its video streams goes decoded to `entry`, and one of its audio
/// streams to `audio`, as far as they are wanted.
pub(super) fn add(
    pipeline: &gst::Pipeline,
    entry: &gst::Pad,
    uri: &str,
    state: &Arc<IngestState>,
    audio: AudioBranch,
) -> Result<()> {
    // Not uridecodebin3: in GStreamer 1.22 it hangs at the start of one film in some hundreds, and
    // its hlsdemux2 crashes or hangs when its server goes away.
    let source = make("uridecodebin")?;
    source.set_property("uri", uri);
    // It stops where a stream is elementary: which of them is decoded is chosen when all are known.
    source.connect("autoplug-continue", false, |values| {
        let caps = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok());
        let is_elementary = caps.is_some_and(|caps| Media::of(&caps).is_some());
        Some((!is_elementary).to_value())
    });
    let outlets = Arc::new(Outlets {
        // Weak references: the pipeline owns the element, which owns the closures that own this.
        pipeline: pipeline.downgrade(),
        entry: entry.downgrade(),
        state: Arc::clone(state),
        audio,
        // RTSP's streams come one by one, and one that never comes must not keep the others
        // waiting.
        is_complete: AtomicBool::new(uri.starts_with("rtsp")),
        waiting: Mutex::default(),
        decoders: Mutex::default(),
    });
    let added = Arc::clone(&outlets);
    source.connect_pad_added(move |_, pad| {
        added.hold(pad);
        if added.is_complete.load(Ordering::Acquire) {
            added.choose();
        }
    });
    let removed = Arc::clone(&outlets);
    source.connect_pad_removed(move |_, pad| removed.drain(pad));
    source.connect_no_more_pads(move |_| {
        outlets.is_complete.store(true, Ordering::Release);
        outlets.choose();
        outlets.say_what_is_missing();
    });
    let (configured, uri) = (Arc::clone(state), uri.to_owned());
    pipeline.connect_deep_element_added(move |_, _, element| configure(&configured, element, &uri));
    pipeline
        .add(&source)
        .map_err(|error| Error::bug("a pipeline takes no uridecodebin").because(error))
}

/// Where the streams of a source go.
struct Outlets {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    entry: gst::glib::WeakRef<gst::Pad>,
    state: Arc<IngestState>,
    audio: AudioBranch,
    /// Whether streams are linked as they come: all that the source began with are known.
    is_complete: AtomicBool,
    /// Exposed streams that are not linked yet; nothing flows through them. The lock is let go
    /// before a pad is linked or let flow.
    waiting: Mutex<Vec<Held>>,
    /// What is decoded, with the decoder. As with `waiting`, nothing is asked of GStreamer under the
    /// lock.
    decoders: Mutex<Vec<Decoded>>,
}

/// A stream that waits for the others to be known.
struct Held {
    pad: gst::Pad,
    candidate: Candidate,
    caps: gst::Caps,
    block: Option<gst::PadProbeId>,
}

/// A stream that is decoded.
struct Decoded {
    pad: gst::Pad,
    media: Media,
    /// None where it comes decoded.
    decoder: Option<gst::Element>,
}

impl Held {
    fn is_raw(&self) -> bool {
        let name = self.caps.structure(0).map(|caps| caps.name().as_str());
        name.is_some_and(|name| name.ends_with("/x-raw"))
    }
}

impl Outlets {
    fn hold(&self, pad: &gst::Pad) {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(candidate) = Candidate::of(pad, &caps) else {
            return;
        };
        let seen = match candidate.media {
            Media::Video => Some(&self.state.has_video),
            Media::Audio => Some(&self.state.has_audio),
            Media::Other => None,
        };
        if let Some(seen) = seen {
            seen.store(true, Ordering::Release);
        }
        let block = pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| {
            gst::PadProbeReturn::Ok
        });
        self.waiting.lock().push(Held {
            pad: pad.clone(),
            candidate,
            caps,
            block,
        });
    }

    /// Links every stream that waits: the chosen ones to decoders, the others to sinks that discard
    /// them undecoded.
    fn choose(self: &Arc<Self>) {
        let Some(pipeline) = self.pipeline.upgrade() else {
            return;
        };
        let held = std::mem::take(&mut *self.waiting.lock());
        let chosen = |media| {
            let candidates = held.iter().map(|held| &held.candidate).enumerate();
            choose(candidates, media)
        };
        let is_free = |media| {
            self.decoders
                .lock()
                .iter()
                .all(|known| known.media != media)
        };
        let pictures =
            chosen(Media::Video).filter(|_| self.state.wants_pictures() && is_free(Media::Video));
        let sound =
            chosen(Media::Audio).filter(|_| self.audio.is_wanted() && is_free(Media::Audio));
        for (at, held) in held.into_iter().enumerate() {
            let is_chosen = Some(at) == pictures || Some(at) == sound;
            let linked = if is_chosen && self.decodable(&held) {
                self.decode(&pipeline, &held)
            } else {
                link_fakesink(&pipeline, &held.pad)
            };
            if !linked {
                tracing::warn!(target: "gstreamer", caps = %held.caps, "a stream cannot be linked");
            }
            if let Some(block) = held.block {
                held.pad.remove_probe(block);
            }
        }
    }
}

impl Outlets {
    /// Puts a decoder behind a stream, and what it gives where it belongs.
    fn decode(self: &Arc<Self>, pipeline: &gst::Pipeline, held: &Held) -> bool {
        let decoded = |decoder| Decoded {
            pad: held.pad.clone(),
            media: held.candidate.media,
            decoder,
        };
        if held.is_raw() {
            self.decoders.lock().push(decoded(None));
            return self.attach(pipeline, &held.pad);
        }
        let Ok(decoder) = make("decodebin") else {
            return false;
        };
        self.decoders.lock().push(decoded(Some(decoder.clone())));
        let outlets = Arc::downgrade(self);
        decoder.connect_pad_added(move |_, pad| {
            if let Some(outlets) = outlets.upgrade()
                && let Some(pipeline) = outlets.pipeline.upgrade()
                && !outlets.attach(&pipeline, pad)
                && !link_fakesink(&pipeline, pad)
            {
                tracing::warn!(target: "gstreamer", pad = %pad.name(), "a decoded stream cannot be linked");
            }
        });
        pipeline.add(&decoder).is_ok()
            && decoder.sync_state_with_parent().is_ok()
            && decoder
                .static_pad("sink")
                .is_some_and(|entry| held.pad.link(&entry).is_ok())
    }

    /// Links a decoded stream: pictures to the views' tee, sound to its branch.
    fn attach(&self, pipeline: &gst::Pipeline, pad: &gst::Pad) -> bool {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map_or("", |caps| caps.name().as_str());
        if name.starts_with("video/") {
            let entry = self.entry.upgrade();
            return entry.is_some_and(|entry| !entry.is_linked() && pad.link(&entry).is_ok());
        }
        if name != "audio/x-raw" || !self.audio.is_wanted() {
            return false;
        }
        if let Err(error) = self.audio.attach(pipeline, pad, &self.state) {
            self.state.fail(error);
        }
        true
    }

    /// Takes the decoder away whose stream has gone, with what it still holds: a transport stream
    /// that changes its PIDs goes on in new pads, which the entry must be free for.
    fn drain(&self, pad: &gst::Pad) {
        let gone = {
            let mut decoders = self.decoders.lock();
            let at = decoders.iter().position(|known| known.pad == *pad);
            at.and_then(|at| decoders.swap_remove(at).decoder)
        };
        // At the end of the whole stream pads go as well, and what is behind them is stopped with it.
        let (Some(decoder), false) = (gone, *self.state.closed.borrow()) else {
            return;
        };
        for out in decoder.src_pads() {
            // The end is this decoder's, not that of the stream.
            out.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
                let is_end = info
                    .event()
                    .is_some_and(|event| event.type_() == gst::EventType::Eos);
                if is_end {
                    DISCARD
                } else {
                    gst::PadProbeReturn::Ok
                }
            });
        }
        if let Some(entry) = decoder.static_pad("sink") {
            entry.send_event(gst::event::Eos::new());
        }
        let _ = decoder.set_state(gst::State::Null);
        if let Some(pipeline) = self.pipeline.upgrade() {
            let _ = pipeline.remove(&decoder);
        }
    }

    /// What a source that has shown all its streams does not have. A live one may still get it.
    fn say_what_is_missing(&self) {
        let state = &self.state;
        let (video, audio) = (
            state.has_video.load(Ordering::Acquire),
            state.has_audio.load(Ordering::Acquire),
        );
        if !audio {
            state.silent.send_replace(true);
        }
        if state.options.live {
            return;
        }
        let name = &state.name;
        let missing = match (video, audio, state.wants_pictures()) {
            (false, false, _) => format!("{name} has no video and no sound"),
            (false, true, true) => format!("{name} has no video stream (audio only)"),
            (_, false, false) => format!("{name} has no sound"),
            _ => return,
        };
        state.fail(Error::external(missing));
    }

    /// Whether a chosen stream can be decoded. Without pictures that were asked for a stream fails;
    /// sound is done without.
    fn decodable(&self, held: &Held) -> bool {
        if held.candidate.is_decodable {
            return true;
        }
        let codec = held
            .caps
            .structure(0)
            .map_or("", |caps| caps.name().as_str());
        let name = &self.state.name;
        match held.candidate.media {
            Media::Video => {
                let message = format!(
                    "{name}: its pictures are `{codec}`, and no decoder for it is installed"
                );
                let hint = "`opusflow doctor` lists what is installed";
                self.state.fail(Error::external(message).hint(hint));
            }
            _ => {
                tracing::warn!(source = %name, codec, "its sound cannot be decoded: no decoder for it is installed");
                self.state.silent.send_replace(true);
            }
        }
        false
    }
}
