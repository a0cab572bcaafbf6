//! What each record says, field by field in the order of its schema.

use std::collections::BTreeMap;

use super::write::Writer;
use crate::packet::{
    Audio, Balance, Caption, DeadLetter, Embedding, Event, Frame, Head, Label, Packet, Payload,
    Picture, RecordId, SAMPLE_RATE, Segment, Transcript,
};

/// Writes the record of `packet`.
pub(super) fn write<W: Writer>(packet: &Packet, out: &mut W) {
    out.open();
    out.field("meta");
    meta(packet.id(), &packet.head, out);
    match &packet.payload {
        Payload::Frame(payload) => frame(payload, out),
        Payload::Audio(payload) => audio(payload, out),
        Payload::Segment(payload) => segment(payload, out),
        Payload::Embedding(payload) => embedding(payload, out),
        Payload::Caption(payload) => caption(payload, out),
        Payload::Transcript(payload) => transcript(payload, out),
        Payload::Picture(payload) => picture(payload, out),
        Payload::Event(payload) => event(payload, out),
        Payload::DeadLetter(payload) => dead_letter(payload, out),
    }
    out.close();
}

fn meta<W: Writer>(id: RecordId, head: &Head, out: &mut W) {
    out.open();
    out.field("id");
    out.text(hex(id, &mut [0; 32]));
    text("stream", &head.channel.stream.id, out);
    out.field("labels");
    map(&head.channel.stream.labels, out, |value, out| {
        out.text(value)
    });
    text("session", &head.channel.stream.session, out);
    unsigned("epoch", head.epoch, out);
    unsigned("seq", head.seq, out);
    text("pipeline", &head.channel.origin.pipeline, out);
    text("config_hash", &head.channel.origin.config_hash, out);
    text("stage", &head.channel.origin.stage, out);
    unsigned("start", head.span.start, out);
    unsigned("end", head.span.end, out);
    for (name, time) in [
        ("event_time", head.event_time),
        ("ingest_time", head.ingest_time),
        ("emit_time", head.emit_time),
    ] {
        out.field(name);
        out.long(time);
    }
    out.field("time_source");
    let source = head.channel.stream.time_source;
    out.symbol(source as usize + 1, source.as_str());
    out.field("parents");
    array(&head.parents, out, |parent, out| {
        out.text(hex(*parent, &mut [0; 32]))
    });
    out.field("model");
    optional(head.model.as_deref(), out, |model, out| {
        out.open();
        text("id", &model.id, out);
        text("revision", &model.revision, out);
        text("precision", &model.precision, out);
        out.close();
    });
    small("revision", head.revision, out);
    boolean("final", head.is_final, out);
    out.close();
}

fn frame<W: Writer>(frame: &Frame, out: &mut W) {
    text("view", &frame.view, out);
    unsigned("index", frame.index, out);
    small("width", frame.width, out);
    small("height", frame.height, out);
    text("format", frame.format.as_str(), out);
}

fn audio<W: Writer>(audio: &Audio, out: &mut W) {
    text("view", &audio.view, out);
    unsigned("index", audio.index, out);
    small("rate", SAMPLE_RATE, out);
    small("samples", audio.len() as u32, out);
}

fn segment<W: Writer>(segment: &Segment, out: &mut W) {
    unsigned("index", segment.index, out);
    out.field("cut");
    out.symbol(segment.cut as usize + 1, segment.cut.as_str());
    out.field("confidence");
    out.float(segment.confidence);
    unsigned("frames", segment.frames, out);
}

fn embedding<W: Writer>(embedding: &Embedding, out: &mut W) {
    text("space", &embedding.space, out);
    out.field("dtype");
    out.symbol(embedding.dtype as usize + 1, embedding.dtype.as_str());
    small("dim", embedding.dim, out);
    boolean("normalized", embedding.normalized, out);
    out.field("vector");
    out.bytes(&embedding.vector);
    small("frames", embedding.frames, out);
    labels("labels", &embedding.labels, out);
}

fn caption<W: Writer>(caption: &Caption, out: &mut W) {
    text("text", &caption.text, out);
    text("language", &caption.language, out);
    text("platform", &caption.platform, out);
    labels("tags", &caption.tags, out);
    small("tokens", caption.tokens, out);
    out.field("finish");
    out.symbol(caption.finish as usize + 1, caption.finish.as_str());
    boolean("partial", caption.partial, out);
    small("variant", caption.variant, out);
}

fn transcript<W: Writer>(transcript: &Transcript, out: &mut W) {
    text("text", &transcript.text, out);
    text("language", &transcript.language, out);
    out.field("language_probability");
    out.float(transcript.language_probability);
    out.field("task");
    out.symbol(transcript.task as usize + 1, transcript.task.as_str());
    out.field("words");
    array(&transcript.words, out, |word, out| {
        out.open();
        text("text", &word.text, out);
        unsigned("start", word.span.start, out);
        unsigned("end", word.span.end, out);
        out.field("probability");
        out.float(word.probability);
        out.close();
    });
    out.field("average_log_probability");
    out.float(transcript.average_log_probability);
    out.field("no_speech_probability");
    out.float(transcript.no_speech_probability);
}

fn picture<W: Writer>(picture: &Picture, out: &mut W) {
    text("role", &picture.role, out);
    text("uri", &picture.uri, out);
    text("sha256", &picture.sha256, out);
    text("media_type", &picture.media_type, out);
    unsigned("bytes", picture.data.len() as u64, out);
    small("width", picture.width, out);
    small("height", picture.height, out);
    out.field("expires_at");
    optional(picture.expires_at, out, |time, out| out.long(time));
    out.field("data");
    optional(picture.inline.then_some(&picture.data), out, |data, out| {
        out.bytes(data)
    });
    out.field("flicker");
    optional(picture.flicker, out, |flicker, out| out.float(flicker));
}

fn event<W: Writer>(event: &Event, out: &mut W) {
    // The kind is 1 more than its place among the four records that follow, each null but the one
    // that it names.
    let place = match event {
        Event::Started { .. } => 0,
        Event::Gap { .. } => 1,
        Event::Progress { .. } => 2,
        Event::Ended { .. } => 3,
    };
    out.field("kind");
    out.symbol(place + 1, event.as_str());
    for (index, name) in ["started", "gap", "progress", "ended"]
        .into_iter()
        .enumerate()
    {
        out.field(name);
        optional((index == place).then_some(event), out, event_details);
    }
}

fn event_details<W: Writer>(event: &Event, out: &mut W) {
    out.open();
    match event {
        Event::Started { uri, digest } => {
            text("uri", uri, out);
            out.field("digest");
            optional(digest.as_deref(), out, |digest, out| out.text(digest));
        }
        Event::Gap {
            from,
            to,
            reason,
            from_epoch,
            to_epoch,
        } => {
            out.field("from");
            out.long(*from);
            out.field("to");
            out.long(*to);
            text("reason", reason, out);
            unsigned("from_epoch", *from_epoch, out);
            unsigned("to_epoch", *to_epoch, out);
        }
        Event::Progress { complete } => unsigned("complete", *complete, out),
        Event::Ended {
            reason,
            ledger,
            records,
        } => {
            text("reason", reason, out);
            out.field("ledger");
            map(ledger, out, balance);
            out.field("records");
            map(records, out, |count, out| out.unsigned(*count));
        }
    }
    out.close();
}

fn balance<W: Writer>(balance: &Balance, out: &mut W) {
    out.open();
    unsigned("ingested", balance.ingested, out);
    unsigned("delivered", balance.delivered, out);
    unsigned("absorbed", balance.absorbed, out);
    out.field("dropped");
    map(&balance.dropped, out, |count, out| out.unsigned(*count));
    unsigned("dead_lettered", balance.dead_lettered, out);
    unsigned("leaked", balance.leaked, out);
    unsigned("in_flight", balance.in_flight, out);
    out.close();
}

fn dead_letter<W: Writer>(letter: &DeadLetter, out: &mut W) {
    text("record", letter.record.as_str(), out);
    text("error_kind", &letter.error_kind, out);
    text("error", &letter.error, out);
    text("failed_stage", &letter.stage, out);
    small("attempts", letter.attempts, out);
}

fn labels<W: Writer>(name: &str, labels: &[Label], out: &mut W) {
    out.field(name);
    array(labels, out, |label, out| {
        out.open();
        text("name", &label.name, out);
        out.field("score");
        out.float(label.score);
        out.close();
    });
}

fn text<W: Writer>(name: &str, value: &str, out: &mut W) {
    out.field(name);
    out.text(value);
}

fn unsigned<W: Writer>(name: &str, value: u64, out: &mut W) {
    out.field(name);
    out.unsigned(value);
}

fn small<W: Writer>(name: &str, value: u32, out: &mut W) {
    out.field(name);
    out.small(value);
}

fn boolean<W: Writer>(name: &str, value: bool, out: &mut W) {
    out.field(name);
    out.boolean(value);
}

fn optional<W: Writer, T>(value: Option<T>, out: &mut W, write: impl FnOnce(T, &mut W)) {
    match value {
        Some(value) => {
            out.some();
            write(value, out);
        }
        None => out.null(),
    }
}

fn array<W: Writer, T>(items: &[T], out: &mut W, write: impl Fn(&T, &mut W)) {
    out.open_array(items.len());
    for item in items {
        out.item();
        write(item, out);
    }
    out.close_array(items.len());
}

fn map<W: Writer, T>(entries: &BTreeMap<String, T>, out: &mut W, write: impl Fn(&T, &mut W)) {
    out.open_map(entries.len());
    for (key, value) in entries {
        out.entry(key);
        write(value, out);
    }
    out.close_map(entries.len());
}

fn hex(id: RecordId, buffer: &mut [u8; 32]) -> &str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in buffer.chunks_exact_mut(2).zip(id.0) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(buffer).expect("hexadecimal digits are ASCII")
}
