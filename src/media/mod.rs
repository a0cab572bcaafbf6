//! GStreamer: a URI becomes views of frames; frames become pictures.
