//! Whether an ISO base media file that comes by HTTP arrived whole: the same question as in `mp4`,
//! for bytes that come in pieces and may end at any time.

use super::mp4::{FilmParts, may_begin};

/// What has come of a download, and where its outermost boxes lie.
#[derive(Debug, Default)]
pub(super) struct DownloadProgress {
    /// Bytes so far.
    length: u64,
    /// Where the box begins whose header has not been read.
    next: u64,
    header: Vec<u8>,
    /// The boxes so far.
    parts: FilmParts,
    /// It is of another kind, is over before its end, or was not read from start to end.
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
        if self.parts.end_before(&kind, size) {
            self.unknown = true;
            return;
        }
        self.parts.note(&kind);
        let next = self
            .next
            .checked_add(size)
            .filter(|_| size >= 8 && (self.next > 0 || may_begin(&kind)));
        self.unknown = next.is_none();
        self.next = next.unwrap_or(0);
        self.header.clear();
    }

    /// Bytes that came, and bytes that the outermost boxes announce, where it is of this kind and
    /// was cut off.
    pub(super) fn cut_off(&self) -> Option<(u64, u64)> {
        let need = match (self.header.is_empty(), self.parts.are_whole()) {
            (true, _) | (false, true) => self.next,
            (false, false) => self.next + 8,
        };
        (!self.unknown && self.next > 0 && self.length < need).then_some((self.length, need))
    }
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
            let whole = [&data[..], b"\0\0\0\x08moov"].concat();
            for behind in [&b"\0"[..], b"written by a camera", b"\0\0\0\x04beef"] {
                let longer = [&whole[..], behind].concat();
                assert_eq!(
                    cut_off(&longer, piece),
                    None,
                    "{behind:?} behind a whole film"
                );
            }
        }
        let mut jumped = DownloadProgress::default();
        jumped.take(Some(0), &data[..20]);
        jumped.take(Some(30), &data[30..40]);
        assert_eq!(jumped.cut_off(), None, "it was not read from start to end");
    }
}
