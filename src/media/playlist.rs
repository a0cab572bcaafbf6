//! HLS playlists (RFC 8216): whether one is complete, so that it is a film, or still grows, so that
//! it is a live stream. Both have the same URL.

use std::time::Duration;

use url::Url;

/// How long to wait for a playlist.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a playlist that are looked at: a day of segments of a second has about 4 MiB.
const MOST: usize = 16 << 20;

/// Whether `url` is named as an HLS playlist.
pub(crate) fn is_playlist(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.path().to_ascii_lowercase().ends_with(".m3u8"))
}

/// Whether the playlist at `url` is complete. None where it does not answer within seconds or is no
/// playlist.
pub(crate) async fn playlist_is_complete(url: &str) -> Option<bool> {
    let url = Url::parse(url).ok()?;
    match classify(&read(&url).await?) {
        PlaylistKind::Media { complete } => Some(complete),
        PlaylistKind::Master { variant } => match classify(&read(&url.join(&variant).ok()?).await?)
        {
            PlaylistKind::Media { complete } => Some(complete),
            PlaylistKind::Master { .. } | PlaylistKind::Other => None,
        },
        PlaylistKind::Other => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum PlaylistKind {
    /// It names other playlists, the first of which is this.
    Master {
        variant: String,
    },
    /// It names segments.
    Media {
        complete: bool,
    },
    Other,
}

fn classify(text: &str) -> PlaylistKind {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    if lines.next() != Some("#EXTM3U") {
        return PlaylistKind::Other;
    }
    let mut master = false;
    for line in lines {
        match line {
            "#EXT-X-ENDLIST" | "#EXT-X-PLAYLIST-TYPE:VOD" => {
                return PlaylistKind::Media { complete: true };
            }
            _ if line.starts_with("#EXT-X-STREAM-INF:") => master = true,
            _ if master && !line.is_empty() && !line.starts_with('#') => {
                return PlaylistKind::Master {
                    variant: line.to_owned(),
                };
            }
            _ => {}
        }
    }
    PlaylistKind::Media { complete: false }
}

async fn read(url: &Url) -> Option<String> {
    let get = async {
        let mut answer = reqwest::get(url.clone())
            .await
            .ok()?
            .error_for_status()
            .ok()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return None;
            }
        }
        String::from_utf8(body).ok()
    };
    tokio::time::timeout(PATIENCE, get).await.ok()?
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A web server with these pages, and its address.
    async fn serve(pages: &'static [(&'static str, &'static str)]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 2048];
                let read = stream.read(&mut request).await.expect("a request");
                let text = String::from_utf8_lossy(&request[..read]);
                let path = text
                    .split(' ')
                    .nth(1)
                    .expect("a path")
                    .split('?')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let (code, body) = pages
                    .iter()
                    .find(|(page, _)| *page == path)
                    .map_or(("404 Not Found", ""), |(_, body)| ("200 OK", *body));
                let answer = format!(
                    "HTTP/1.1 {code}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream
                    .write_all(answer.as_bytes())
                    .await
                    .expect("it is written");
            }
        });
        address
    }

    #[tokio::test]
    async fn a_playlist_that_has_ended_is_a_film() {
        const SEGMENT: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n";
        let address = serve(&[
            (
                "/vod/film.m3u8",
                "#EXTM3U\r\n#EXTINF:2,\r\na.ts\r\n#EXT-X-ENDLIST\r\n",
            ),
            ("/live.m3u8", SEGMENT),
            (
                "/master.m3u8",
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n# a \
                 comment\nvod/film.m3u8?x=1\n#EXT-X-STREAM-INF:BANDWIDTH=2\nlive.m3u8\n",
            ),
            (
                "/masters.m3u8",
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmaster.m3u8\n",
            ),
            ("/page.m3u8", "<html>"),
        ])
        .await;
        for (path, expected) in [
            ("vod/film.m3u8", Some(true)),
            ("live.m3u8", Some(false)),
            ("master.m3u8?token=1", Some(true)),
            ("masters.m3u8", None),
            ("page.m3u8", None),
            ("nowhere.m3u8", None),
        ] {
            assert_eq!(
                playlist_is_complete(&format!("{address}/{path}")).await,
                expected,
                "{path}"
            );
        }
        assert!(
            is_playlist("https://h/x.M3U8?token=1")
                && !is_playlist("x.m3u8")
                && !is_playlist("http://h/x.mp4")
        );
    }
}
