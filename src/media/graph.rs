//! The GStreamer pipeline of one stream: a source, the probe that keeps its time, a tee, and a
//! branch a view.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::branch;
use super::ingest_state::{DISCARD, IngestState};
use super::jpeg;
use super::playlist::is_playlist;
use super::sound::{AudioBranch, SoundReader};
use super::uri::{MediaSource, TestSource};
use super::view::ViewReader;
use crate::error::{Error, Result};

/// Video formats whose stream may hold packets that become no picture, so that counting them in and
/// out says nothing.
const UNCOUNTED: [&str; 3] = ["video/x-vp8", "video/x-vp9", "video/x-av1"];

/// Makes an element, or says what is missing.
pub(super) fn make(name: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(name).build().map_err(|error| {
        Error::external(format!("GStreamer has no element `{name}`"))
            .because(error)
            .hint("`opusflow doctor` lists what is missing")
    })
}

/// Builds the pipeline of `source`, stopped, with a reader a view of pictures and of sound.
pub(super) fn build(
    source: &MediaSource,
    state: &Arc<IngestState>,
) -> Result<(gst::Pipeline, Vec<ViewReader>, Vec<SoundReader>)> {
    let pipeline = gst::Pipeline::new();
    let tee = make("tee")?;
    tee.set_property("allow-not-linked", true);
    pipeline
        .add(&tee)
        .map_err(|error| Error::bug("a pipeline takes no tee").because(error))?;
    let entry = tee
        .static_pad("sink")
        .ok_or_else(|| Error::bug("a tee without sink pad"))?;
    let probe = Arc::clone(state);
    entry.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
        move |_, info| probe.probe(info),
    );
    let (entrance, sounds) = AudioBranch::new(state)?;
    match source {
        MediaSource::Test(test) => add_test(&pipeline, &tee, test, state, &entrance)?,
        MediaSource::File(_, uri) | MediaSource::Remote(uri) => {
            add_uri(&pipeline, &entry, uri, state, entrance)?
        }
    }
    let readers = (0..state.options.views.len())
        .map(|index| branch::add(&pipeline, &tee, index, state))
        .collect::<Result<_>>()?;
    Ok((pipeline, readers, sounds))
}

fn add_test(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    test: &TestSource,
    state: &Arc<IngestState>,
    entrance: &AudioBranch,
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
    if entrance.is_open() {
        add_tone(pipeline, test, state, entrance)
    } else {
        Ok(())
    }
}

/// A tone as long as the test pictures.
fn add_tone(
    pipeline: &gst::Pipeline,
    test: &TestSource,
    state: &Arc<IngestState>,
    entrance: &AudioBranch,
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
    entrance.attach(pipeline, &pad, state)
}

/// The first video stream of `uri`, decoded, and where it is wanted the first audio stream.
fn add_uri(
    pipeline: &gst::Pipeline,
    entry: &gst::Pad,
    uri: &str,
    state: &Arc<IngestState>,
    entrance: AudioBranch,
) -> Result<()> {
    // Not uridecodebin3: in GStreamer 1.22 it hangs at the start of one film in some hundreds, and
    // its hlsdemux2 crashes or hangs when its server goes away.
    let decode = make("uridecodebin")?;
    decode.set_property("uri", uri);
    let (seen, choice) = (Arc::clone(state), Mutex::new(StreamSelection::default()));
    decode.connect("autoplug-continue", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok());
        Some(
            pad.zip(caps)
                .is_none_or(|(pad, caps)| choice.lock().takes(&seen, &pad, &caps))
                .to_value(),
        )
    });
    let (tee, whole, heard) = (entry.downgrade(), pipeline.downgrade(), Arc::clone(state));
    decode.connect_pad_added(move |_, pad| {
        let (Some(tee), Some(whole)) = (tee.upgrade(), whole.upgrade()) else {
            return;
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let is = |kind: &str| {
            caps.structure(0)
                .is_some_and(|caps| caps.name().starts_with(kind))
        };
        if is("video/") {
            heard.has_video.store(true, Ordering::Release);
        }
        let linked = match () {
            () if is("video/") && !tee.is_linked() => pad.link(&tee).is_ok(),
            () if is("audio/x-raw") && entrance.is_open() => {
                match entrance.attach(&whole, pad, &heard) {
                    Ok(()) => true,
                    Err(error) => return heard.fail(error),
                }
            }
            () => link_fakesink(&whole, pad),
        };
        if !linked {
            tracing::warn!(target: "gstreamer", %caps, "a decoded stream cannot be linked");
        }
    });
    let (setup, uri) = (Arc::clone(state), uri.to_owned());
    pipeline.connect_deep_element_added(move |_, _, element| configure(&setup, element, &uri));
    pipeline
        .add(&decode)
        .map_err(|error| Error::bug("a pipeline takes no uridecodebin").because(error))
}

/// Ends a stream that nobody asked for.
fn link_fakesink(pipeline: &gst::Pipeline, pad: &gst::Pad) -> bool {
    let Ok(sink) = make("fakesink") else {
        return false;
    };
    for (property, value) in [
        ("sync", false),
        ("async", false),
        ("enable-last-sample", false),
    ] {
        sink.set_property(property, value);
    }
    let linked = pipeline.add(&sink).is_ok()
        && sink
            .static_pad("sink")
            .is_some_and(|entry| pad.link(&entry).is_ok());
    linked && sink.sync_state_with_parent().is_ok()
}

/// The elementary streams that are decoded: the first of each kind. The others are let out as they
/// are.
#[derive(Default)]
struct StreamSelection {
    video: Option<gst::glib::GString>,
    audio: Option<gst::glib::GString>,
}

impl StreamSelection {
    /// Notes what there is, and says whether decoding goes on behind `pad`.
    fn takes(&mut self, state: &IngestState, pad: &gst::Pad, caps: &gst::CapsRef) -> bool {
        let Some(name) = caps.structure(0).map(|caps| caps.name().as_str()) else {
            return true;
        };
        let parent = pad.parent_element().and_then(|parent| parent.factory());
        // Containers are `video/...` as well; behind what takes them apart there are elementary
        // streams only.
        let is_elementary = parent.is_some_and(|parent| {
            parent.has_type(gst::ElementFactoryType::DEMUXER | gst::ElementFactoryType::DEPAYLOADER)
        });
        if name.starts_with("audio/") {
            state.has_audio.store(true, Ordering::Release);
            state.wants_sound() && (!is_elementary || first(&mut self.audio, pad))
        } else if is_elementary && (name.starts_with("video/") || name.starts_with("image/")) {
            state.has_video.store(true, Ordering::Release);
            first(&mut self.video, pad)
        } else {
            true
        }
    }
}

/// Whether `pad` is of the stream that was seen first.
fn first(known: &mut Option<gst::glib::GString>, pad: &gst::Pad) -> bool {
    let id = pad.stream_id().unwrap_or_else(|| pad.name());
    *known.get_or_insert_with(|| id.clone()) == id
}

/// Sets the limits of sources and decoders as `uridecodebin` makes them.
fn configure(state: &Arc<IngestState>, element: &gst::Element, uri: &str) {
    let Some(factory) = element.factory() else {
        return;
    };
    let options = &state.options;
    let seconds = |duration: std::time::Duration| duration.as_secs().clamp(1, 3600) as u32;
    match factory.name().as_str() {
        "rtspsrc" => {
            if uri.starts_with("rtsp:") || uri.starts_with("rtsps:") {
                element.set_property_from_str("protocols", "tcp");
            }
            if options.sender_clock {
                element.set_property("add-reference-timestamp-meta", true);
            }
            element.set_property(
                "tcp-timeout",
                options.connect.as_micros().clamp(1, u128::from(u32::MAX)) as u64,
            );
            if let Some(latency) = options.latency {
                element.set_property("latency", latency.as_millis().min(60_000) as u32);
            }
        }
        "rtmp2src" => {
            element.set_property("timeout", seconds(options.connect));
            // Later than our own watch, which says what happened where this would only end the
            // stream.
            element.set_property("idle-timeout", seconds(options.stall) + 5);
        }
        "souphttpsrc" => {
            element.set_property("timeout", seconds(options.stall));
            authenticate(element, uri);
            if !options.live && !is_playlist(uri) {
                follow(state, element);
            }
        }
        "srtsrc" => {
            element.set_property("auto-reconnect", false);
            if let Some(latency) = options.latency {
                element.set_property("latency", latency.as_millis().min(60_000) as i32);
            }
        }
        _ if [
            gst::ElementFactoryType::MEDIA_VIDEO,
            gst::ElementFactoryType::MEDIA_IMAGE,
        ]
        .into_iter()
        .any(|media| factory.has_type(gst::ElementFactoryType::DECODER | media)) =>
        {
            configure_decoder(state, element)
        }
        _ => {}
    }
}

/// Follows what an HTTP source gives, for a server that breaks off without having told a length
/// ends it like one that is done.
fn follow(state: &Arc<IngestState>, element: &gst::Element) {
    let Some(pad) = element.static_pad("src") else {
        return;
    };
    let state = Arc::clone(state);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer()
            && let Ok(data) = buffer.map_readable()
        {
            let offset = Some(buffer.offset()).filter(|offset| *offset != u64::MAX);
            state.download.lock().take(offset, &data);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Hands the user and password of an http URI to libsoup, which does not take them from it.
fn authenticate(element: &gst::Element, uri: &str) {
    let Ok(url) = url::Url::parse(uri) else {
        return;
    };
    if !url.username().is_empty() {
        element.set_property("user-id", url.username());
        element.set_property("user-pw", url.password().unwrap_or_default());
    }
}

fn configure_decoder(state: &Arc<IngestState>, element: &gst::Element) {
    let threads = state.options.decode_threads.min(64);
    for property in ["max-threads", "threads", "n-threads"] {
        let Some(found) = element.find_property(property) else {
            continue;
        };
        match found.value_type() {
            kind if kind == i32::static_type() => element.set_property(property, threads as i32),
            // Of the decoders only libav's take 0 for "as many as fit".
            kind if kind == u32::static_type() && threads > 0 => {
                element.set_property(property, threads)
            }
            _ => {}
        }
    }
    observe(state, element);
}

/// Puts the probe before a parser or a decoder: it refuses pictures that are too large while they
/// are still small, and counts the packets, for a parser may swallow damaged ones and a decoder
/// others.
fn observe(state: &Arc<IngestState>, element: &gst::Element) {
    let Some(pad) = element.static_pad("sink") else {
        return;
    };
    let (state, seen) = (Arc::clone(state), AtomicU64::new(0));
    pad.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, info| match &info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => admitted(&state, caps.caps()),
                _ => gst::PadProbeReturn::Ok,
            },
            Some(gst::PadProbeData::Buffer(_)) if state.failure.borrow().is_some() => DISCARD,
            Some(gst::PadProbeData::Buffer(buffer)) if !jpeg_admitted(&state, pad, buffer) => {
                DISCARD
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if framed(pad) && shows(pad, buffer) {
                    state
                        .encoded
                        .fetch_max(seen.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                }
                gst::PadProbeReturn::Ok
            }
            _ => gst::PadProbeReturn::Ok,
        },
    );
}

fn admitted(state: &IngestState, caps: &gst::CapsRef) -> gst::PadProbeReturn {
    let Some(structure) = caps.structure(0) else {
        return gst::PadProbeReturn::Ok;
    };
    *state.codec.lock() = Some(codec(structure));
    let side = |name| structure.get::<i32>(name).unwrap_or(0).max(0) as u32;
    if state.admits(side("width"), side("height")) {
        gst::PadProbeReturn::Ok
    } else {
        DISCARD
    }
}

/// Whether a packet's picture may be decoded, as far as only the packet itself tells its size.
fn jpeg_admitted(state: &IngestState, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
    let is_jpeg = pad.current_caps().is_some_and(|caps| {
        caps.structure(0)
            .is_some_and(|caps| caps.name() == "image/jpeg")
    });
    let size = if is_jpeg {
        buffer
            .map_readable()
            .ok()
            .and_then(|data| jpeg::size(&data))
    } else {
        None
    };
    size.is_none_or(|(width, height)| state.admits(width, height))
}

/// Whether packets here are whole frames that each become a picture.
fn framed(pad: &gst::Pad) -> bool {
    let Some(caps) = pad.current_caps() else {
        return false;
    };
    caps.structure(0).is_some_and(|caps| {
        let packed = caps
            .get::<&str>("stream-format")
            .is_ok_and(|format| format != "byte-stream");
        let aligned = caps
            .get::<&str>("alignment")
            .is_ok_and(|alignment| alignment == "au");
        let parsed = caps.get::<bool>("parsed").unwrap_or(false)
            || caps.get::<bool>("framed").unwrap_or(false);
        (packed || aligned || parsed) && !UNCOUNTED.contains(&caps.name().as_str())
    })
}

/// Whether a packet becomes a picture that the segment shows.
fn shows(pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
    if buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
        return false;
    }
    let segment = pad
        .sticky_event::<gst::event::Segment>(0)
        .and_then(|event| event.segment().downcast_ref::<gst::ClockTime>().cloned());
    segment
        .zip(buffer.pts())
        .is_none_or(|(segment, pts)| segment.to_running_time(pts).is_some())
}

/// `h264` for `video/x-h264`, `mpeg4` for `video/mpeg, mpegversion=4`.
fn codec(structure: &gst::StructureRef) -> String {
    let name = structure.name().as_str();
    match structure.get::<i32>("mpegversion") {
        Ok(version) => format!("mpeg{version}"),
        Err(_) => name
            .trim_start_matches("video/")
            .trim_start_matches("image/")
            .trim_start_matches("x-")
            .to_owned(),
    }
}
