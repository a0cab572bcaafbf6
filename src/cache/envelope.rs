//! How a value lies in Redis: a version, a flag for compression, its lifetime's end, its length and
//! a checksum over all of it and its key, so that a value that is damaged, foreign or of another
//! version is a miss and never an error.

use std::time::Duration;

use bytes::Bytes;

use super::key::Key;

const MAGIC: [u8; 2] = *b"OF";
const VERSION: u8 = 1;
const ZSTD: u8 = 1;
/// Fast, and on vectors and text within a few percent of the slower ones.
const LEVEL: i32 = 1;
const HEAD: usize = 28;

/// The longest value that is written to Redis.
pub(super) const LONGEST: usize = 256 << 20;

/// Wraps `value`; it is compressed where it is longer than `compress_above` and gains by it.
pub(super) fn seal(key: &Key, value: &[u8], compress_above: usize, expires_ms: u64) -> Vec<u8> {
    let compressed = (value.len() > compress_above)
        .then(|| zstd::bulk::compress(value, LEVEL).ok())
        .flatten();
    let (flags, body) = match &compressed {
        Some(smaller) if smaller.len() < value.len() => (ZSTD, smaller.as_slice()),
        _ => (0, value),
    };
    let mut sealed = Vec::with_capacity(HEAD + body.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[VERSION, flags]);
    sealed.extend_from_slice(&expires_ms.to_le_bytes());
    sealed.extend_from_slice(&(value.len() as u64).to_le_bytes());
    let sum = checksum(key, &sealed, body);
    sealed.extend_from_slice(&sum);
    sealed.extend_from_slice(body);
    sealed
}

/// Unwraps what [`seal`] wrote under the same key: the value and what is left of its lifetime at
/// `now_ms`. None where it is anything else.
pub(super) fn unseal(key: &Key, sealed: Bytes, now_ms: u64) -> Option<(Bytes, Duration)> {
    let (head, body) = sealed.split_at_checked(HEAD)?;
    let (fields, sum) = head.split_at(HEAD - 8);
    if fields[..2] != MAGIC || fields[2] != VERSION || checksum(key, fields, body) != sum {
        return None;
    }
    let number = |at: usize| fields[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let left = number(4)?.checked_sub(now_ms).filter(|&left| left > 0)?;
    let length = usize::try_from(number(12)?)
        .ok()
        .filter(|&length| length <= LONGEST)?;
    let value = match fields[3] {
        0 => sealed.slice(HEAD..),
        ZSTD => Bytes::from(zstd::bulk::decompress(body, length).ok()?),
        _ => return None,
    };
    (value.len() == length).then_some((value, Duration::from_millis(left)))
}

fn checksum(key: &Key, fields: &[u8], body: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(
        &blake3::Hasher::new_keyed(key.digest())
            .update(fields)
            .update(body)
            .finalize()
            .as_bytes()[..8],
    );
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::builder("encode").number(n).finish()
    }

    #[test]
    fn values_come_back_with_what_is_left_of_their_life() {
        for value in [
            vec![],
            vec![7; 100],
            vec![7; 100_000],
            (0..5000u32)
                .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
                .collect(),
        ] {
            let sealed = seal(&key(1), &value, 1024, 5000);
            let (back, left) = unseal(&key(1), Bytes::from(sealed), 2000).unwrap();
            assert_eq!(
                (back.as_ref(), left),
                (value.as_slice(), Duration::from_secs(3))
            );
        }
    }

    #[test]
    fn long_values_are_compressed_and_short_ones_are_not() {
        assert!(seal(&key(1), &[7; 100_000], 1024, 1).len() < 1000);
        assert_eq!(seal(&key(1), &[7; 1000], 1024, 1).len(), HEAD + 1000);
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_key_is_a_miss() {
        let sealed = seal(&key(1), b"a value of some length", 1024, 5000);
        for bit in 0..sealed.len() * 8 {
            let mut broken = sealed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&key(1), Bytes::from(broken), 0), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(
                unseal(&key(1), Bytes::copy_from_slice(&sealed[..length]), 0),
                None,
                "cut to {length}"
            );
        }
        assert_eq!(unseal(&key(2), Bytes::from(sealed.clone()), 0), None);
        assert_eq!(
            unseal(&key(1), Bytes::from(sealed), 5000),
            None,
            "its life is over"
        );
    }
}
