//! The key of a result: a digest over everything that the result depends on.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Names one result: what it is of, and a BLAKE3 digest over its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    op: &'static str,
    digest: [u8; 32],
}

impl Key {
    /// Opens the key of a result of `op` (`encode`, `caption`). The op is part of the digest.
    pub fn builder(op: &'static str) -> KeyBuilder {
        KeyBuilder {
            op,
            hasher: blake3::Hasher::new(),
        }
        .part(op.as_bytes())
    }

    /// What the result is of.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The digest over op and parts.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The key in Redis: `opusflow:v1:<op>:<hex>`.
    pub fn redis(&self) -> String {
        format!(
            "opusflow:v1:{}:{}",
            self.op,
            blake3::Hash::from_bytes(self.digest).to_hex()
        )
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redis())
    }
}

/// Collects the parts of a key. Each is hashed behind its length, so that moving a byte from one
/// part to the next gives another key.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    op: &'static str,
    hasher: blake3::Hasher,
}

impl KeyBuilder {
    /// Adds something the result depends on.
    #[must_use]
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.part(number.to_le_bytes())
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key {
            op: self.op,
            digest: *self.hasher.finalize().as_bytes(),
        }
    }
}

/// A digest as a map's key. It is spread evenly already, so its first bytes serve as its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub [u8; 32]);

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_le_bytes(first));
    }
}

/// Hands a digest's bytes through.
#[derive(Default, Clone, Copy)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

pub(super) type BuildIdentityHasher = BuildHasherDefault<IdentityHasher>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_between_parts_count() {
        let key = |a: &str, b: &str| Key::builder("encode").part(a).part(b).finish();
        assert_eq!(key("ab", "c"), key("ab", "c"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(key("ab", ""), Key::builder("encode").part("ab").finish());
        assert_ne!(
            key("a", "b").digest(),
            Key::builder("caption")
                .part("a")
                .part("b")
                .finish()
                .digest()
        );
    }

    #[test]
    fn redis_key_names_version_and_op() {
        let key = Key::builder("encode").number(7).finish().redis();
        let hex = key.strip_prefix("opusflow:v1:encode:").expect("the prefix");
        assert!(
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{key}"
        );
    }
}
