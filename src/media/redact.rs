//! How a URI is written down without its secrets.

use std::borrow::Cow;

const SECRETS: [&str; 14] = [
    "token",
    "key",
    "secret",
    "password",
    "pass",
    "pwd",
    "passphrase",
    "signature",
    "sig",
    "auth",
    "access_token",
    "credential",
    "streamid",
    "jwt",
];

/// `text`, a URI or a message that holds some, without user names, passwords and secret parameters.
pub(crate) fn redact_uris(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let (uri, further) = after.split_at(end);
        out.push_str(&redact_tail(uri));
        rest = further;
    }
    out.push_str(rest);
    out
}

/// What follows `scheme://`.
fn redact_tail(tail: &str) -> Cow<'_, str> {
    let authority = tail.find(['/', '?', '#']).unwrap_or(tail.len());
    // A password may hold an unescaped slash: what stands before the last @ of the path is then
    // taken for credentials as well.
    let path = tail.find(['?', '#']).unwrap_or(tail.len());
    let colon = tail[..authority].contains(':');
    let credentials = tail[..authority]
        .rfind('@')
        .or_else(|| colon.then(|| tail[..path].rfind('@')).flatten());
    let shown = match credentials {
        Some(at) => Cow::Owned(format!("***{}", &tail[at..])),
        None => Cow::Borrowed(tail),
    };
    let Some((head, query)) = shown.split_once('?') else {
        return shown;
    };
    let query: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, _)) if is_secret(key) => Cow::Owned(format!("{key}=***")),
            _ => Cow::Borrowed(pair),
        })
        .collect();
    Cow::Owned(format!("{head}?{}", query.join("&")))
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.split(['-', '_', '.'])
        .any(|word| SECRETS.contains(&word))
        || SECRETS.contains(&key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_shown() {
        for (uri, shown) in [
            (
                "rtsp://joe:s3cret@cam:554/a?x=1",
                "rtsp://***@cam:554/a?x=1",
            ),
            ("rtmp://joe:a@b@cam/live", "rtmp://***@cam/live"),
            ("rtmp://joe:a/b@cam/live", "rtmp://***@cam/live"),
            (
                "http://h/v.m3u8?token=abc&n=2&X-Amz-Signature=ff#t",
                "http://h/v.m3u8?token=***&n=2&X-Amz-Signature=***",
            ),
            (
                "srt://h:9?passphrase=0123456789",
                "srt://h:9?passphrase=***",
            ),
            ("no uri at all", "no uri at all"),
            (
                "cannot open 'rtsp://u:p@h/x' now, nor http://k@g",
                "cannot open 'rtsp://***@h/x' now, nor http://***@g",
            ),
        ] {
            assert_eq!(redact_uris(uri), shown);
        }
    }
}
