//! Texts without their secrets: the one place that says what of a URL may be shown in messages,
//! logs, records and the effective pipeline. What is not known to be harmless is `***`.
//!
//! `url` takes one URL apart, `names` lists the parameters that are harmless or secret. Nothing here
//! can fail, and what was redacted once is not changed by doing it again.

mod names;
mod url;

use self::url::{Scheme, Shown, is_scheme_letter};
pub(crate) use names::{HIDDEN, is_secret_name};

/// `text`, a URL or a message that holds some, without user names, passwords and parameters that
/// may be secret. A URL ends at white space, and where another begins behind a comma, quote or
/// bracket; a password may hold any other character.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, tail) = rest.split_at(at + "://".len());
        out.push_str(before);
        let scheme = Scheme::before(&rest[..at]);
        let word = &tail[..end_of_word(tail)];
        let Shown {
            text,
            consumed,
            broke_off,
        } = url::show(scheme, word);
        out.push_str(&text);
        rest = &tail[consumed..];
        if broke_off {
            rest = after_credentials(rest);
        }
        if scheme == Scheme::Rtmp {
            rest = rtmp_options(rest, &mut out);
        }
    }
    out.push_str(rest);
    out
}

/// The same for a text that should be one URL: without `://` nobody knows which part is secret, so
/// none of it is shown.
pub(crate) fn redact_url(text: &str) -> String {
    if text.contains("://") {
        redact(text)
    } else {
        "the given text".to_owned()
    }
}

/// What tells the stream at `url` from others, to be hashed, never shown: without its user, its
/// password and the values of parameters that are secret by their name, so that a changed password
/// leaves it the same stream; all else is kept, also what [`redact`] hides.
pub(crate) fn identity(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, tail)) => format!("{scheme}://{}", url::identity(tail)),
        None => url.to_owned(),
    }
}

/// Where the URL ends that `tail`, what follows its `://`, begins with.
fn end_of_word(tail: &str) -> usize {
    let end = tail
        .find(|c: char| c.is_whitespace() || c.is_control())
        .unwrap_or(tail.len());
    let word = &tail[..end];
    for (at, _) in word.match_indices("://") {
        let scheme = start_of_scheme(&word[..at]);
        let separator = word[..scheme].chars().next_back();
        if scheme < at && separator.is_some_and(is_separator) {
            return scheme;
        }
    }
    end
}

/// Where the scheme begins that stands at the end of `text`.
fn start_of_scheme(text: &str) -> usize {
    text.trim_end_matches(is_scheme_letter).len()
}

fn is_separator(c: char) -> bool {
    ",;|\"'`<>()[]{}".contains(c)
}

/// `rest` behind a URL whose credentials a blank has cut in two: from the last `@` on before the
/// next URL.
fn after_credentials(rest: &str) -> &str {
    let end = rest.find("://").unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else {
        return rest;
    };
    let behind = &rest[at..];
    &behind[end_of_word(behind)..]
}

/// librtmp's options, which follow the URL as words: `rtmp://host/app playpath=KEY live=1`. Writes
/// them to `out` and gives what is behind them.
fn rtmp_options<'a>(mut rest: &'a str, out: &mut String) -> &'a str {
    loop {
        let word = rest.trim_start_matches(' ');
        let end = word.find(char::is_whitespace).unwrap_or(word.len());
        let is_option = word.len() < rest.len()
            && word[..end]
                .split_once('=')
                .is_some_and(|(name, _)| names::is_plain(name));
        if !is_option {
            return rest;
        }
        out.push_str(&rest[..rest.len() - word.len()]);
        out.push_str(&url::pair(&word[..end]));
        rest = &word[end..];
    }
}

#[cfg(test)]
mod tests;
