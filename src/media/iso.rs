//! Whether an ISO base media file (.mp4, .mov) is whole. Demuxers take a missing tail for the end
//! of the film, and GStreamer 1.22 at times swallows the error about a missing index.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What the outermost boxes of such a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopLevelBoxes {
    /// Bytes there, and bytes that the boxes announce, where the file is shorter.
    pub cut_off: Option<(u64, u64)>,
    /// Whether it tells where its frames are.
    pub has_index: bool,
}

/// Reads the headers of the outermost boxes; none where it is no regular file, or one of another
/// kind.
pub(super) fn survey(path: &Path) -> Option<TopLevelBoxes> {
    // Opening a pipe would wait for someone who writes to it.
    let length = std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    let mut file = File::open(path).ok()?;
    let (mut at, mut has_index) = (0, false);
    // A film in fragments has two boxes a fragment: a million of them is days.
    for _ in 0..1_000_000 {
        if at >= length {
            break;
        }
        if at + 8 > length {
            at += 8;
            break;
        }
        let (kind, size) = header(&mut file, at)?;
        if at == 0 && !begins(&kind) {
            return None;
        }
        has_index |= matches!(&kind, b"moov" | b"moof");
        match size {
            0 => at = length,
            1..8 => return None,
            size => at = at.checked_add(size)?,
        }
    }
    (at > 0).then_some(TopLevelBoxes {
        cut_off: (at > length).then_some((length, at)),
        has_index,
    })
}

/// Kind and size of the box at `at`; size 0 says that it reaches to the end of the file.
fn header(file: &mut File, at: u64) -> Option<([u8; 4], u64)> {
    let mut head = [0; 16];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut head[..8]).ok()?;
    let kind = [head[4], head[5], head[6], head[7]];
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if size != 1 {
        return Some((kind, u64::from(size)));
    }
    file.read_exact(&mut head[8..]).ok()?;
    let mut long = [0; 8];
    long.copy_from_slice(&head[8..]);
    Some((kind, u64::from_be_bytes(long)))
}

/// The same for what comes in pieces and may end at any time, a film by HTTP.
#[derive(Debug, Default)]
pub(super) struct DownloadProgress {
    /// Bytes so far.
    length: u64,
    /// Where the box begins whose header has not been read.
    next: u64,
    header: Vec<u8>,
    /// It is of another kind, or was not read from start to end.
    unknown: bool,
}

impl DownloadProgress {
    /// Takes what comes next; `offset` is its place in the file, where that is known.
    pub(super) fn take(&mut self, offset: Option<u64>, data: &[u8]) {
        self.unknown |= offset.is_some_and(|offset| offset != self.length);
        let (mut at, end) = (self.length, self.length + data.len() as u64);
        while !self.unknown && at < end {
            let header_end = self.next + self.header.len() as u64;
            if at < header_end {
                at = header_end.min(end);
                continue;
            }
            self.header.push(data[(at - self.length) as usize]);
            at += 1;
            self.read_header();
        }
        self.length = end;
    }

    fn read_header(&mut self) {
        let Some((head, long)) = self.header.split_first_chunk::<8>() else {
            return;
        };
        let [a, b, c, d, kind @ ..] = *head;
        let size = match (
            u64::from(u32::from_be_bytes([a, b, c, d])),
            long.first_chunk::<8>(),
        ) {
            (1, None) => return,
            (1, Some(long)) => u64::from_be_bytes(*long),
            (size, _) => size,
        };
        let next = self
            .next
            .checked_add(size)
            .filter(|_| size >= 8 && (self.next > 0 || begins(&kind)));
        self.unknown = next.is_none();
        self.next = next.unwrap_or(0);
        self.header.clear();
    }

    /// Bytes that came, and bytes that the outermost boxes announce, where it is of this kind and
    /// was cut off.
    pub(super) fn cut_off(&self) -> Option<(u64, u64)> {
        let need = if self.header.is_empty() {
            self.next
        } else {
            self.next + 8
        };
        (!self.unknown && self.next > 0 && self.length < need).then_some((self.length, need))
    }
}

/// Whether a file of this kind may begin with such a box.
fn begins(kind: &[u8; 4]) -> bool {
    matches!(
        kind,
        b"ftyp" | b"moov" | b"wide" | b"free" | b"skip" | b"mdat" | b"styp"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tail_is_noticed_in_pieces_too() {
        let mut data = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
        data.extend(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x20");
        data.extend([0; 16]);
        let cut_off = |data: &[u8], piece: usize| {
            let mut download = DownloadProgress::default();
            data.chunks(piece)
                .for_each(|piece| download.take(None, piece));
            download.cut_off()
        };
        for piece in [1, 3, 7, 100] {
            assert_eq!(cut_off(&data, piece), None);
            assert_eq!(cut_off(&data[..40], piece), Some((40, 48)));
            assert_eq!(cut_off(&data[..20], piece), Some((20, 24)));
            assert_eq!(cut_off(b"no boxes here, only some text", piece), None);
        }
        let mut jumped = DownloadProgress::default();
        jumped.take(Some(0), &data[..20]);
        jumped.take(Some(30), &data[30..40]);
        assert_eq!(jumped.cut_off(), None, "it was not read from start to end");
    }

    #[test]
    fn a_missing_tail_and_a_missing_index_are_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.mp4");
        let mut data = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
        data.extend(b"\0\0\0\x20mdat");
        data.extend([0; 24]);
        std::fs::write(&path, &data).expect("written");
        assert_eq!(
            survey(&path),
            Some(TopLevelBoxes {
                cut_off: None,
                has_index: false
            })
        );
        std::fs::write(&path, &data[..40]).expect("written");
        assert_eq!(
            survey(&path),
            Some(TopLevelBoxes {
                cut_off: Some((40, 48)),
                has_index: false
            })
        );
        data.extend(b"\0\0\0\x08moov");
        std::fs::write(&path, &data).expect("written");
        assert_eq!(
            survey(&path),
            Some(TopLevelBoxes {
                cut_off: None,
                has_index: true
            })
        );
        std::fs::write(&path, b"no boxes here, only some text").expect("written");
        assert_eq!(survey(&path), None);
    }
}
