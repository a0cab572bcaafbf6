//! Which GStreamer elements the ingest needs, and which are there.

use gstreamer as gst;

use super::log::init;

const NEEDED: [(&str, &str); 29] = [
    ("uridecodebin", "every source but test://"),
    ("videotestsrc", "test:// sources"),
    ("tee", "several views of one decoder"),
    ("queue", "a thread a view"),
    ("deinterlace", "interlaced video"),
    ("videoflip", "pictures of cameras on their side"),
    ("aspectratiocrop", "views with `fit: cover`"),
    ("videoscale", "sizes of views"),
    ("videoconvert", "RGB pixels"),
    ("capsfilter", "sizes and formats of views"),
    ("appsink", "frames into the pipeline"),
    ("filesrc", "files"),
    ("souphttpsrc", "http and https"),
    ("rtmp2src", "RTMP"),
    ("flvdemux", "RTMP"),
    ("rtspsrc", "RTSP"),
    ("rtph264depay", "RTSP with H.264"),
    ("srtsrc", "SRT"),
    ("hlsdemux", "HLS"),
    ("tsdemux", "HLS, SRT, .ts files"),
    ("qtdemux", ".mp4 and .mov files"),
    ("matroskademux", ".mkv and .webm files"),
    ("h264parse", "H.264"),
    ("avdec_h264", "H.264"),
    ("h265parse", "H.265"),
    ("avdec_h265", "H.265"),
    ("vp8dec", "VP8"),
    ("vp9dec", "VP9"),
    ("av1dec", "AV1"),
];

/// Every element that ingest uses: its name, whether it is installed, what it is for. All are
/// absent where GStreamer does not start.
pub(crate) fn required_elements() -> Vec<(String, bool, String)> {
    let started = init().is_ok();
    NEEDED
        .iter()
        .map(|(element, purpose)| {
            (
                (*element).to_owned(),
                started && gst::ElementFactory::find(element).is_some(),
                (*purpose).to_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn core_elements_are_found() {
        let found = super::required_elements();
        assert!(
            found
                .iter()
                .any(|(element, present, _)| element == "appsink" && *present)
        );
    }
}
