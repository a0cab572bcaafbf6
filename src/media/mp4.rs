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
        if at == 0 && !may_begin(&kind) {
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
        std::fs::write(&path, b"no boxes here, only some text").expect("written");
        assert_eq!(scan(&path), None);
    }
}
