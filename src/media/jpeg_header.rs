//! The size that a JPEG gives itself: in Motion JPEG the container says nothing of it that binds,
//! and decoders take memory for what they find.

/// Width and height from the frame header of a JPEG; none where there is no such header.
pub(super) fn size(data: &[u8]) -> Option<(u32, u32)> {
    let mut rest = data.strip_prefix(&[0xff, 0xd8])?;
    loop {
        // A marker may be preceded by any number of fill bytes.
        let (&marker, segment) = rest.strip_prefix(&[0xff])?.split_first()?;
        match marker {
            0xff => rest = &rest[1..],
            // Frame headers; 0xc4, 0xc8 and 0xcc are tables.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let side = |at: usize| {
                    Some(u32::from(u16::from_be_bytes(
                        segment.get(at..at + 2)?.try_into().ok()?,
                    )))
                };
                return Some((side(5)?, side(3)?));
            }
            0xd0..=0xd7 | 0x01 => rest = segment,
            // The picture's data without a frame header, or its end.
            0xd9 | 0xda => return None,
            _ => {
                let length = u16::from_be_bytes(segment.get(..2)?.try_into().ok()?);
                rest = segment.get(usize::from(length.max(2))..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn size_is_read_past_tables_and_fill_bytes() {
        let frame = [0xff, 0xc0, 0, 11, 8, 0x4e, 0x20, 0x00, 0x10, 1, 1, 0x11, 0];
        let head = [
            0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc4, 0, 3, 9, 0xff,
        ];
        let jpeg = [&head[..], &frame].concat();
        assert_eq!(size(&jpeg), Some((16, 20_000)));
        assert_eq!(
            size(&jpeg[..jpeg.len() - 6]),
            None,
            "cut off within the header"
        );
        for nonsense in [
            &b""[..],
            &[0xff, 0xd8],
            &[0xff, 0xd8, 0xff],
            &[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff],
            b"no picture",
        ] {
            assert_eq!(size(nonsense), None);
        }
    }
}
