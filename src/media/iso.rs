//! Whether an ISO base media file (.mp4, .mov) is shorter than its boxes say: demuxers take such an end for the end of the film.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes there, and bytes that the outermost boxes announce, where the file is one of this kind and cut off.
pub(super) fn cut_off(path: &Path) -> Option<(u64, u64)> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut at = 0;
    // A film in fragments has two boxes a fragment: a million of them is days.
    for _ in 0..1_000_000 {
        if at + 8 > length {
            return (at < length && at > 0).then_some((length, at + 8));
        }
        let (kind, size) = header(&mut file, at)?;
        if at == 0 && !matches!(&kind, b"ftyp" | b"moov" | b"wide" | b"free" | b"skip" | b"mdat" | b"styp") {
            return None;
        }
        match size {
            0 => return None,
            size if size < 8 => return None,
            size => at = at.checked_add(size)?,
        }
        if at > length {
            return Some((length, at));
        }
        if at == length {
            return None;
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tail_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.mp4");
        let mut data = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
        data.extend(b"\0\0\0\x20mdat");
        data.extend([0; 24]);
        std::fs::write(&path, &data).expect("written");
        assert_eq!(cut_off(&path), None);
        std::fs::write(&path, &data[..40]).expect("written");
        assert_eq!(cut_off(&path), Some((40, 48)));
        std::fs::write(&path, b"no boxes here, only some text").expect("written");
        assert_eq!(cut_off(&path), None);
    }
}
