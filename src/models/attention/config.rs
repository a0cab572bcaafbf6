//! What an attention is made with: its sizes, its biases, and how its scores are computed.

/// How attention is computed: the same numbers but for rounding, another use of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionKind {
    /// libtorch's fused kernel, which holds no matrix of scores where the device has one.
    #[default]
    Sdpa,
    /// One head after the other, and of its queries so many at a time that a million scores are in
    /// memory.
    Sliced,
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Width of the sequence that asks, and of what comes out.
    pub width: i64,
    /// Width of the sequence that is asked; `width` where that is the sequence itself.
    pub context: i64,
    /// Number of heads.
    pub count: i64,
    /// Width of one head.
    pub dim: i64,
}

impl AttentionConfig {
    /// Of a sequence with itself: `width / count` a head.
    pub fn self_attention(width: i64, count: i64) -> Self {
        Self {
            width,
            context: width,
            count,
            dim: width / count,
        }
    }
}

/// Which of query, key, value and output have a bias.
#[derive(Debug, Clone, Copy)]
pub struct Biases {
    /// The query has one.
    pub query: bool,
    /// The key has one.
    pub key: bool,
    /// The value has one.
    pub value: bool,
    /// The output has one.
    pub out: bool,
}

impl Biases {
    /// All four.
    pub const ALL: Self = Self {
        query: true,
        key: true,
        value: true,
        out: true,
    };
    /// The output only.
    pub const OUT: Self = Self {
        query: false,
        key: false,
        value: false,
        out: true,
    };
}
