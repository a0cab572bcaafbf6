//! The names of parameters: those whose values may be shown, and those that are secrets by name.

/// What stands for something that is not shown.
pub(crate) const HIDDEN: &str = "***";

/// Parameters whose values say how a stream is carried, cut or shown, never who asks for it. What is
/// not listed is not shown. In small letters, sorted.
const HARMLESS: &[&str] = &[
    "a",
    "acodec",
    "angle",
    "bitrate",
    "bitratekbps",
    "buffer",
    "buffering",
    "buffersize",
    "camera",
    "channel",
    "channels",
    "clock",
    "codec",
    "compression",
    "connect_timeout",
    "date",
    "day",
    "db",
    "drop",
    "duration",
    "end",
    "events",
    "f",
    "fifo_size",
    "format",
    "fps",
    "frame",
    "framerate",
    "frames",
    "gop",
    "h",
    "height",
    "hour",
    "index",
    "interval",
    "keepalive",
    "kind",
    "lang",
    "language",
    "latency",
    "level",
    "limit",
    "live",
    "loop",
    "max",
    "maxbw",
    "min",
    "minute",
    "mode",
    "month",
    "mss",
    "multicast",
    "n",
    "offset",
    "overlay",
    "page",
    "part",
    "pattern",
    "payload_size",
    "pbkeylen",
    "peerlatency",
    "pkt_size",
    "poll-timeout",
    "port",
    "position",
    "profile",
    "proto",
    "protocol",
    "q",
    "quality",
    "rate",
    "rcvbuf",
    "rcvlatency",
    "reconnect",
    "region",
    "resolution",
    "rotation",
    "rtsp_transport",
    "second",
    "seek",
    "sequence",
    "size",
    "sndbuf",
    "speed",
    "start",
    "stop",
    "stream",
    "stream_type",
    "streamprofile",
    "streamtype",
    "subtype",
    "swfvfy",
    "t",
    "time",
    "timeout",
    "tlpktdrop",
    "track",
    "transport",
    "transtype",
    "ttl",
    "tune",
    "type",
    "unicast",
    "v",
    "vcodec",
    "version",
    "videocodec",
    "view",
    "w",
    "wait-for-connection",
    "width",
    "x",
    "y",
    "year",
];

/// Words that make a parameter's name the name of a secret.
const SECRET: &[&str] = &[
    "apikey",
    "auth",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "hdnea",
    "hdnts",
    "hmac",
    "jaas",
    "jwt",
    "key",
    "keydata",
    "login",
    "oauthbearer",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pem",
    "policy",
    "pubpasswd",
    "pubuser",
    "pw",
    "pwd",
    "secret",
    "session",
    "sessionid",
    "sid",
    "sig",
    "sign",
    "signature",
    "ticket",
    "token",
    "user",
    "username",
    "usr",
];

/// Whether the value of a URL's parameter may be shown.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&normal(name).as_str())
}

/// Whether what has this name is a secret: one of its words, as in `X-Amz-Signature`,
/// `sasl.password` or `accessToken`, is a secret's.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let decoded = decoded(name);
    let mut words = String::with_capacity(decoded.len() + 4);
    let mut before = ' ';
    for c in decoded.chars() {
        if before.is_lowercase() && c.is_uppercase() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
        before = c;
    }
    words.starts_with("x-amz-")
        || words
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| SECRET.contains(&word))
        || SECRET.contains(&decoded.to_lowercase().as_str())
}

/// Whether a name is made as names are: anything else may itself be a secret.
pub(super) fn is_plain(name: &str) -> bool {
    let decoded = decoded(name);
    (1..=40).contains(&decoded.len())
        && decoded
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn normal(name: &str) -> String {
    decoded(name).to_ascii_lowercase()
}

/// `text` with its percent-escapes decoded, also where they were encoded again. One that was encoded
/// more often keeps its `%`, and so is neither plain nor harmless.
pub(super) fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..4 {
        if !text.contains('%') {
            break;
        }
        text = decoded_once(&text);
    }
    text
}

fn decoded_once(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (
            bytes[at],
            digit(bytes.get(at + 1)),
            digit(bytes.get(at + 2)),
        ) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_harmless_parameter_is_a_secret_by_name() {
        for name in HARMLESS {
            assert!(!is_secret_name(name), "{name}");
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn secrets_are_known_by_their_words() {
        for name in [
            "token",
            "access_token",
            "X-Amz-Signature",
            "X-Amz-Date",
            "sasl.password",
            "ssl.key.password",
            "accessToken",
            "TOKEN",
            "to%6ben",
            "to%256Ben",
            "sessionId",
            "pwd",
            "sasl.oauthbearer.client.secret",
            "ssl.key.pem",
            "user",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "channel",
            "monkey",
            "compression.type",
            "keyframe",
            "linger.ms",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
