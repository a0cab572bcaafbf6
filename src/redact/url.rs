//! One URL taken apart: what of its authority, path and query may be shown.

use std::net::Ipv6Addr;

use super::names::{HIDDEN, decoded, is_harmless, is_plain, is_secret_name};

/// What its scheme says of a URL's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Behind the application's name stands the stream's, with which anyone may publish.
    Rtmp,
    /// A file on this machine: its name is no secret, whatever it looks like.
    File,
    /// A path that may hold parameters.
    Other,
}

impl Scheme {
    /// The scheme at the end of `text`, which `://` follows.
    pub(super) fn before(text: &str) -> Self {
        let start = text.trim_end_matches(is_scheme_letter).len();
        match text[start..].to_ascii_lowercase().as_str() {
            scheme if scheme.starts_with("rtmp") => Self::Rtmp,
            "file" => Self::File,
            _ => Self::Other,
        }
    }
}

pub(super) fn is_scheme_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-._".contains(c)
}

/// What may be shown of a URL.
pub(super) struct Shown {
    pub text: String,
    /// How much of the word it stands for: less than all where another URL begins in its path.
    pub consumed: usize,
    /// Whether it broke off within what looks like a password.
    pub broke_off: bool,
}

/// What stands before the path.
enum Authority<'a> {
    /// A host that can be shown, with its port.
    Host(&'a str),
    /// Credentials, and from their `@` on the host.
    Login(&'a str),
    /// Credentials that end nobody knows where.
    Unclear,
}

/// What may be shown of `word`, what follows `scheme://` in a text.
pub(super) fn show(scheme: Scheme, word: &str) -> Shown {
    // Quotes, brackets and full stops around a URL are the sentence's.
    let url = word.trim_end_matches(|c| "'\"`<>()[]{},.;:!".contains(c));
    let closing = &word[url.len()..];
    let path_at = url.find(['/', '?', '#']).unwrap_or(url.len());
    let mut text = match authority(url, path_at) {
        Authority::Host(host) => host.to_owned(),
        Authority::Login(host) => format!("{HIDDEN}{host}"),
        Authority::Unclear => {
            return Shown {
                text: format!("{HIDDEN}{closing}"),
                consumed: word.len(),
                broke_off: !url.contains('@'),
            };
        }
    };
    let behind = &url[path_at..];
    let path = &behind[..behind.find(['?', '#']).unwrap_or(behind.len())];
    if let Some(at) = path.find("://") {
        let nested = path[..at].trim_end_matches(is_scheme_letter).len();
        text.push_str(&show_path(scheme, &path[..nested]));
        return Shown {
            text,
            consumed: path_at + nested,
            broke_off: false,
        };
    }
    let path_start = text.len();
    text.push_str(&show_path(scheme, path));
    if let Some(query) = behind[path.len()..].strip_prefix('?') {
        let query = &query[..query.find('#').unwrap_or(query.len())];
        // Behind something hidden a name may be the rest of it: a password may hold a `?` or `&`.
        let after_secret = text[path_start..].contains(HIDDEN);
        let show_pair = if after_secret { harmless_pair } else { pair };
        let pairs: Vec<_> = query.split('&').map(show_pair).collect();
        text.push('?');
        text.push_str(&pairs.join("&"));
    }
    text.push_str(closing);
    Shown {
        text,
        consumed: word.len(),
        broke_off: false,
    }
}

/// Reads the authority of `url`, which ends at byte `end` unless a password holds what ends it.
fn authority(url: &str, end: usize) -> Authority<'_> {
    let authority = &url[..end];
    match url.rfind('@') {
        Some(at) if at < end => Authority::Login(&url[at..end]),
        // A password may hold a slash, and a path an `@`. Where both are possible nothing behind
        // the scheme is shown, for what is on either side of that `@` may be secret.
        Some(_) if !is_bare_host(authority) || !url[end..].starts_with('/') => Authority::Unclear,
        None if !is_host(authority) => Authority::Unclear,
        _ if decoded(authority).contains('@') => Authority::Unclear,
        _ => Authority::Host(authority),
    }
}

/// Whether it is a host, or a host and a port, rather than the beginning of `user:password@`.
fn is_host(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        None => true,
        Some((host, port)) => {
            is_address(authority)
                || (is_bare_host(host) && port.chars().all(|c| c.is_ascii_digit()))
        }
    }
}

/// Whether no user and password can stand in it.
fn is_bare_host(authority: &str) -> bool {
    !authority.contains([':', '@']) || is_address(authority)
}

/// Whether it is an IPv6 address in brackets, perhaps with a port.
fn is_address(authority: &str) -> bool {
    let Some(inside) = authority.strip_prefix('[') else {
        return false;
    };
    let (address, port) = inside.split_once(']').unwrap_or((inside, ""));
    address.parse::<Ipv6Addr>().is_ok() && port.chars().all(|c| c == ':' || c.is_ascii_digit())
}

/// A path without what may be secret in it: a stream's name in RTMP, and parameters as cameras and
/// CDNs write them, `/user=admin&password=x` and `/user=admin_password=x_channel=1.sdp`.
fn show_path(scheme: Scheme, path: &str) -> String {
    if scheme == Scheme::File {
        return path.to_owned();
    }
    let mut shown = String::with_capacity(path.len());
    let mut hide_rest = false;
    let mut at = 0;
    for segment in path.split_inclusive('/') {
        let rest = &path[at..];
        if hide_rest && !rest.chars().all(|c| c == '/') {
            // A secret may hold a slash.
            return shown + HIDDEN;
        }
        at += segment.len();
        let name = segment.strip_suffix('/').unwrap_or(segment);
        let text = show_segment(name);
        hide_rest |= text != name || text.contains(HIDDEN);
        hide_rest |= scheme == Scheme::Rtmp && !name.is_empty();
        shown.push_str(&text);
        shown.push_str(&segment[name.len()..]);
    }
    shown
}

fn show_segment(segment: &str) -> String {
    let mut shown = String::with_capacity(segment.len());
    let mut hide_rest = false;
    for piece in segment.split_inclusive(['&', ';']) {
        let bare = piece.strip_suffix(['&', ';']).unwrap_or(piece);
        let text = match bare.contains('=') {
            // Behind a secret a name may be the rest of it.
            true if hide_rest => harmless_pair(bare),
            true => pair(bare),
            false if hide_rest || hides_something(bare) => HIDDEN.to_owned(),
            false => bare.to_owned(),
        };
        hide_rest |= text.contains(HIDDEN);
        shown.push_str(&text);
        shown.push_str(&piece[bare.len()..]);
    }
    shown
}

/// Whether percent-escapes hide a parameter, a login or another URL.
fn hides_something(segment: &str) -> bool {
    segment.contains('%') && {
        let decoded = decoded(segment);
        decoded.contains(['=', '@']) || decoded.contains("://")
    }
}

/// A parameter without its value, unless both name and value are harmless.
pub(super) fn pair(text: &str) -> String {
    let Some((name, value)) = text.split_once('=') else {
        let shown = if text.is_empty() || is_harmless(text) {
            text
        } else {
            HIDDEN
        };
        return shown.to_owned();
    };
    if is_harmless(name) && is_plain_value(value) {
        return text.to_owned();
    }
    // `?c2VjcmV0==` is no name, but a secret in base64.
    let nothing = value.trim_matches('=').is_empty();
    if nothing || !is_plain(name) {
        HIDDEN.to_owned()
    } else {
        format!("{name}={HIDDEN}")
    }
}

/// A parameter as it is where it is harmless; else nothing of it.
fn harmless_pair(text: &str) -> String {
    let shown = pair(text);
    if shown == text {
        shown
    } else {
        HIDDEN.to_owned()
    }
}

/// Whether a value is a word, a number, a time or a fraction, with nothing hidden inside.
fn is_plain_value(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:,+".contains(c);
    let in_fraction = |c: char| c.is_ascii_digit() || c == '/';
    value.len() <= 64 && (value.chars().all(is_plain) || value.chars().all(in_fraction))
}

/// `tail`, what follows `scheme://`, without credentials and the values of secrets.
pub(super) fn identity(tail: &str) -> String {
    let authority = tail.find(['/', '?', '#']).unwrap_or(tail.len());
    let path = tail.find(['?', '#']).unwrap_or(tail.len());
    let colon = tail[..authority].contains(':');
    // A password may hold an unescaped slash: what stands before the last `@` of the path is then
    // taken for credentials as well.
    let login = tail[..authority]
        .rfind('@')
        .or_else(|| if colon { tail[..path].rfind('@') } else { None });
    let (start, mut kept) = match login {
        Some(at) => (at, HIDDEN.to_owned()),
        None => (0, String::with_capacity(tail.len())),
    };
    let within = |text: &str, ends: &[char], kept: &mut String| {
        for piece in text.split_inclusive(ends) {
            let bare = piece.strip_suffix(ends).unwrap_or(piece);
            match bare.split_once('=') {
                Some((name, _)) if is_secret_name(name) => {
                    kept.push_str(name);
                    kept.push('=');
                    kept.push_str(HIDDEN);
                }
                _ => kept.push_str(bare),
            }
            kept.push_str(&piece[bare.len()..]);
        }
    };
    within(&tail[start..path], &['/', '&', ';', '_'], &mut kept);
    within(&tail[path..], &['?', '&', '#'], &mut kept);
    kept
}
