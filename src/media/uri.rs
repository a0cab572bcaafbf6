//! What a caller may open: paths, URIs of known schemes, and `test://`.

use std::path::{Path, PathBuf};

use url::Url;

use super::options::FrameRate;
use crate::error::{Error, Result};
use crate::redact::redact;

const SCHEMES: [&str; 12] = [
    "file", "http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "rtspt", "rtspu", "srt", "test",
    "rtmpt",
];

/// Where frames come from, checked as far as that goes without opening it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MediaSource {
    /// A file on disk, by its path and its percent-encoded URI.
    File(PathBuf, String),
    /// Something on the network.
    Remote(String),
    /// GStreamer's test pictures.
    Test(TestSource),
}

/// Test pictures: `test://?pattern=ball&fps=30&size=320x240&frames=300&live=true`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TestSource {
    /// A nickname of videotestsrc's `pattern`.
    pub pattern: String,
    pub fps: FrameRate,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// After how many it ends; none goes on for ever.
    pub frames: Option<u32>,
    /// Whether it keeps pace with the clock.
    pub live: bool,
}

impl MediaSource {
    /// Reads a path or URI. Looks at the disk for files, so not for an async thread.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.chars().any(char::is_control) {
            return Err(Error::config("a source's URI holds a control character"));
        }
        if !text.contains("://") {
            return Self::file(Path::new(text));
        }
        let shown = redact(text);
        let url = Url::parse(text)
            .map_err(|error| Error::config(format!("{shown} is not a URI")).because(error))?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(Error::config(format!(
                "{shown}: no source reads the scheme `{}`",
                url.scheme()
            ))
            .hint(format!("known are paths and {}", SCHEMES.join(", "))));
        }
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| {
                    Error::config(format!("{shown} does not name a file on this machine"))
                })?;
                Self::file(&path)
            }
            "test" => TestSource::parse(&url).map(MediaSource::Test),
            _ if url.host_str().is_none_or(str::is_empty) && url.scheme() != "srt" => {
                Err(Error::config(format!("{shown} names no host")))
            }
            _ => Ok(MediaSource::Remote(text.to_owned())),
        }
    }

    fn file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let path = std::path::absolute(path)
            .map_err(|error| Error::config(format!("{shown} is not a path")).because(error))?;
        let meta = std::fs::metadata(&path)
            .map_err(|error| Error::external(format!("cannot open {shown}")).because(error))?;
        if meta.is_dir() {
            return Err(Error::config(format!("{shown} is a directory"))
                .hint("name a file, or a glob such as DIR/*.mp4"));
        }
        if meta.is_file() && meta.len() == 0 {
            return Err(Error::external(format!("{shown} is empty")));
        }
        let uri = Url::from_file_path(&path)
            .map_err(|()| Error::config(format!("{shown} cannot be written as a URI")))?;
        Ok(MediaSource::File(path, uri.into()))
    }
}

impl TestSource {
    fn parse(url: &Url) -> Result<Self> {
        let mut test = Self {
            pattern: "smpte".into(),
            fps: FrameRate::new(30, 1),
            size: (320, 240),
            frames: None,
            live: false,
        };
        for (key, value) in url.query_pairs() {
            let wrong = || Error::config(format!("{url}: `{value}` is no {key}"));
            match key.as_ref() {
                "pattern" => test.pattern = value.into_owned(),
                "fps" => test.fps = fraction(&value).ok_or_else(wrong)?,
                "size" => test.size = size(&value).ok_or_else(wrong)?,
                "frames" => {
                    test.frames = Some(
                        value
                            .parse()
                            .ok()
                            .filter(|frames| *frames <= i32::MAX as u32)
                            .ok_or_else(wrong)?,
                    )
                }
                "live" => test.live = value.parse().map_err(|_| wrong())?,
                _ => {
                    return Err(Error::config(format!("{url}: unknown `{key}`"))
                        .hint("known are pattern, fps, size, frames, live"));
                }
            }
        }
        Ok(test)
    }
}

fn fraction(text: &str) -> Option<FrameRate> {
    let (num, den) = text.split_once('/').unwrap_or((text, "1"));
    let fraction = FrameRate::new(num.parse().ok()?, den.parse().ok()?);
    (fraction.num <= 1_000_000
        && (1..=1_000_000).contains(&fraction.den)
        && fraction.period().is_some())
    .then_some(fraction)
}

fn size(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    let size = (width.parse().ok()?, height.parse().ok()?);
    ((1..=32_768).contains(&size.0) && (1..=32_768).contains(&size.1)).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_sources_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = dir.path().join("empty.mp4");
        std::fs::write(&empty, b"").expect("written");
        for (text, message) in [
            (
                "gopher://joe:hunter2@host/x",
                "no source reads the scheme `gopher`",
            ),
            ("http://", "is not a URI"),
            (
                "file://elsewhere/film.mp4",
                "does not name a file on this machine",
            ),
            ("/no/such/film.mp4", "cannot open /no/such/film.mp4"),
            ("file:///no/%00/film.mp4", "cannot open"),
            ("a\0b", "control character"),
            (&dir.path().display().to_string(), "is a directory"),
            (&empty.display().to_string(), "is empty"),
            ("test://?fps=0", "`0` is no fps"),
            ("test://?size=99999999x1", "is no size"),
            ("test://?colour=red", "unknown `colour`"),
        ] {
            let error = MediaSource::parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn odd_file_names_survive() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("50% of #1?.mp4");
        std::fs::write(&path, b"x").expect("written");
        let MediaSource::File(found, uri) =
            MediaSource::parse(&path.display().to_string()).expect("a file")
        else {
            panic!("not a file")
        };
        assert_eq!(found, path);
        assert_eq!(
            MediaSource::parse(&uri).expect("the same file"),
            MediaSource::File(path, uri.clone())
        );
    }

    #[test]
    fn test_source_reads_its_parameters() {
        let MediaSource::Test(test) =
            MediaSource::parse("test://?pattern=ball&fps=30000/1001&size=64x48&frames=9&live=true")
                .expect("parses")
        else {
            panic!("not a test source")
        };
        let expected = TestSource {
            pattern: "ball".into(),
            fps: FrameRate::new(30_000, 1001),
            size: (64, 48),
            frames: Some(9),
            live: true,
        };
        assert_eq!(test, expected);
    }
}
