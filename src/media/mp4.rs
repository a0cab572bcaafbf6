//! Whether an ISO base media file (.mp4, .mov) is whole. Demuxers take a missing tail for the end
//! of the film, and GStreamer 1.22 sometimes loses the error about a missing index.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What the outermost boxes of such a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopLevelBoxes {
    /// Bytes there, and bytes that the boxes announce, where the file is shorter.
    pub cut_off: Option<(u64, u64)>,
    /// Whether it says where its frames are.
    pub has_index: bool,
}

/// Reads the headers of the outermost boxes; none where it is no regular file, or one of another
/// kind.
pub(super) fn scan(path: &Path) -> Option<TopLevelBoxes> {
    // Opening a pipe would wait for someone who writes to it.
    let length = std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    let mut file = File::open(path).ok()?;
    let (mut at, mut parts) = (0, FilmParts::default());
    // A film in fragments has two boxes a fragment: a million of them is days.
    for _ in 0..1_000_000 {
        if at >= length {
            break;
        }
        if at + 8 > length {
            at = if parts.are_whole() { length } else { at + 8 };
            break;
        }
        let (kind, size) = header(&mut file, at)?;
        if parts.end_before(&kind, size) {
            at = length;
            break;
        }
        if at == 0 && !may_begin(&kind) {
            return None;
        }
        parts.note(&kind);
        match size {
            0 => at = length,
            1..8 => return None,
            size => at = at.checked_add(size)?,
        }
    }
    (at > 0).then_some(TopLevelBoxes {
        cut_off: (at > length).then_some((length, at)),
        has_index: parts.has_index,
    })
}

/// What of a film its outermost boxes were, so far.
#[derive(Debug, Default)]
pub(super) struct FilmParts {
    has_index: bool,
    has_media: bool,
    is_fragmented: bool,
}

impl FilmParts {
    pub(super) fn note(&mut self, kind: &[u8; 4]) {
        self.has_index |= matches!(kind, b"moov" | b"moof");
        self.has_media |= kind == b"mdat";
        self.is_fragmented |= kind == b"moof";
    }

    /// Whether nothing is missing, whatever follows. Of a film in fragments the next may always be.
    pub(super) fn are_whole(&self) -> bool {
        self.has_index && self.has_media && !self.is_fragmented
    }

    /// Whether what looks like a box is none of the film's: behind a whole one anything may stand,
    /// padding, a text, what a card's clusters held before.
    pub(super) fn end_before(&self, kind: &[u8; 4], size: u64) -> bool {
        self.are_whole() && (!is_known(kind) || (1..8).contains(&size))
    }
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

/// Whether such a box may stand among the outermost.
fn is_known(kind: &[u8; 4]) -> bool {
    may_begin(kind)
        || matches!(
            kind,
            b"moof"
                | b"mfra"
                | b"sidx"
                | b"ssix"
                | b"prft"
                | b"emsg"
                | b"pdin"
                | b"meta"
                | b"meco"
                | b"uuid"
                | b"udta"
        )
}

/// Whether a file of this kind may begin with such a box.
pub(super) fn may_begin(kind: &[u8; 4]) -> bool {
    matches!(
        kind,
        b"ftyp" | b"moov" | b"wide" | b"free" | b"skip" | b"mdat" | b"styp"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tail_and_a_missing_index_are_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.mp4");
        let mut data = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
        data.extend(b"\0\0\0\x20mdat");
        data.extend([0; 24]);
        std::fs::write(&path, &data).expect("written");
        assert_eq!(
            scan(&path),
            Some(TopLevelBoxes {
                cut_off: None,
                has_index: false
            })
        );
        std::fs::write(&path, &data[..40]).expect("written");
        assert_eq!(
            scan(&path),
            Some(TopLevelBoxes {
                cut_off: Some((40, 48)),
                has_index: false
            })
        );
        data.extend(b"\0\0\0\x08moov");
        std::fs::write(&path, &data).expect("written");
        assert_eq!(
            scan(&path),
            Some(TopLevelBoxes {
                cut_off: None,
                has_index: true
            })
        );
        for behind in [
            &b"\0"[..],
            b"\0\0\0\0\0\0\0\0",
            b"written by a camera",
            b"\0\0\0\x04beef",
        ] {
            let mut longer = data.clone();
            longer.extend(behind);
            std::fs::write(&path, longer).expect("written");
            let found = scan(&path).expect("boxes");
            assert_eq!(found.cut_off, None, "{behind:?} behind a whole film");
        }
        data.extend(b"\0\0\0\x08moof\0\0\0\x20md");
        std::fs::write(&path, &data).expect("written");
        let found = scan(&path).expect("boxes");
        assert!(found.cut_off.is_some(), "in the middle of a fragment");
        std::fs::write(&path, b"no boxes here, only some text").expect("written");
        assert_eq!(scan(&path), None);
    }
}
