//! What a network that writes a text token by token must do, so that the ways of choosing tokens
//! (greedy, drawn, beams) are written once over all of them: it reads prompts into a cache,
//! continues every text of the cache by a token, and yields logits.

mod cross_attention;
mod cross_context;
mod kv_cache;

pub use cross_attention::{
    ConditionedDecoder, CrossAttentionDecoder, CrossAttentionLayer, Transform,
};
pub use cross_context::CrossContext;
pub use kv_cache::{KvCache, KvCacheConfig, LayerCache};

use crate::error::{Error, Result};
use crate::tensor::{Tensor, guard};

/// Positions a pass takes at most, over all texts, so that what it holds between operations stays
/// small.
const CHUNK: i64 = 1024;
/// A beginning that all prompts share is read once if it is at least this long.
const SHARED: usize = 8;

/// A network that writes token by token.
pub trait Decoder {
    /// The texts under way.
    type Cache: Cache;

    /// Tokens it knows.
    fn vocabulary(&self) -> i64;

    /// Tokens of the longest text it was made for, the prompt included.
    fn positions(&self) -> i64;

    /// A cache of one text without tokens yet, with room for `columns`.
    ///
    /// # Errors
    /// Overload, where memory is short.
    fn empty(&self, columns: i64) -> Result<Self::Cache>;

    /// Appends `columns` tokens to every text, `tokens` text after text. Returns their hidden
    /// states, `[texts * columns, width]` or `[texts, columns, width]`.
    ///
    /// # Errors
    /// Model, where the texts grow beyond what the network can hold; overload, where memory is
    /// short.
    fn pass(&self, cache: &mut Self::Cache, tokens: &[i64], columns: i64) -> Result<Tensor>;

    /// The logits of the next token after each hidden state: `[n, width]` to `[n, vocabulary]`,
    /// f32.
    ///
    /// # Errors
    /// Overload, where memory is short.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// Whether a text depends on nothing but its tokens, so that what all prompts begin with need
    /// be read only once.
    fn depends_on_tokens_only(&self) -> bool {
        true
    }

    /// Reads `prompts` (none empty) and returns their cache, with room for `further` tokens, and
    /// the logits after each one's last token: `[prompts, vocabulary]`, f32.
    ///
    /// # Errors
    /// As for [`pass`](Self::pass).
    fn start(&self, prompts: &[&[i64]], further: i64) -> Result<(Self::Cache, Tensor)> {
        let _frozen = guard();
        let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        let shortest = prompts.iter().map(|p| p.len()).min().unwrap_or(0);
        if shortest == 0 {
            return Err(Error::bug("a prompt without tokens"));
        }
        let mut cache = self.empty(longest as i64 + further)?;
        let shared = if prompts.len() > 1 && self.depends_on_tokens_only() {
            shared_prefix(prompts).min(shortest - 1)
        } else {
            0
        };
        let shared = if shared >= SHARED { shared } else { 0 };
        if shared > 0 {
            let _ = read(self, &mut cache, &[&prompts[0][..shared]])?;
        }
        cache
            .columns()
            .expand_rows(prompts.iter().map(|p| (longest - p.len()) as i64).collect())?;
        let rest: Vec<&[i64]> = prompts.iter().map(|p| &p[shared..]).collect();
        let last = read(self, &mut cache, &rest)?;
        cache.columns().end_prompts();
        Ok((cache, self.logits(&last)?))
    }

    /// Reads `prompts`, all of one length, in one pass and returns their cache, with room for
    /// `further` tokens, and the hidden state of every position, `[prompts, columns, width]`: for
    /// callers that look at more than the last one.
    ///
    /// # Errors
    /// Bug, where their lengths differ; else as for [`pass`](Self::pass).
    fn start_whole(&self, prompts: &[&[i64]], further: i64) -> Result<(Self::Cache, Tensor)> {
        let _frozen = guard();
        let columns = prompts.first().map_or(0, |prompt| prompt.len());
        if columns == 0 || prompts.iter().any(|prompt| prompt.len() != columns) {
            return Err(Error::bug("prompts of one pass are of one length"));
        }
        let mut cache = self.empty(columns as i64 + further)?;
        cache.columns().expand_rows(vec![0; prompts.len()])?;
        let hidden = self.pass(&mut cache, &prompts.concat(), columns as i64)?;
        cache.columns().end_prompts();
        let shape = [prompts.len() as i64, columns as i64, -1];
        Ok((cache, hidden.f_reshape(shape)?))
    }

    /// Appends one token to every text of `cache` and returns the logits after it: `[texts,
    /// vocabulary]`, f32.
    ///
    /// # Errors
    /// As for [`pass`](Self::pass).
    fn step(&self, cache: &mut Self::Cache, tokens: &[i64]) -> Result<Tensor> {
        let _frozen = guard();
        let rows = cache.columns().rows();
        if tokens.len() as i64 != rows {
            return Err(Error::bug(format!(
                "{} tokens for {rows} texts",
                tokens.len()
            )));
        }
        let hidden = self.pass(cache, tokens, 1)?;
        self.logits(&hidden.f_reshape([rows, -1])?)
    }
}

/// The texts under way, a row each.
pub trait Cache {
    /// Their keys and values.
    fn columns(&mut self) -> &mut KvCache;

    /// Goes on with these rows, in this order; a row may come more than once or not at all.
    ///
    /// # Errors
    /// Overload, where memory is short.
    fn keep(&mut self, rows: &[usize]) -> Result<()>;
}

/// Reads texts, padded on the left to the longest, in passes of bounded size; returns the last
/// position's hidden state, `[texts, width]`.
fn read<D: Decoder + ?Sized>(
    decoder: &D,
    cache: &mut D::Cache,
    texts: &[&[i64]],
) -> Result<Tensor> {
    let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
    let rows = texts.len() as i64;
    let chunk = (CHUNK / rows).max(16) as usize;
    cache.columns().reserve(longest as i64)?;
    let mut last = None;
    let mut start = 0;
    while start < longest {
        let end = (start + chunk).min(longest);
        let tokens: Vec<i64> = texts
            .iter()
            .flat_map(|text| {
                let pad = longest - text.len();
                (start..end).map(move |column| if column < pad { 0 } else { text[column - pad] })
            })
            .collect();
        let columns = (end - start) as i64;
        let hidden = decoder.pass(cache, &tokens, columns)?;
        last = Some(
            hidden
                .f_reshape([rows, columns, -1])?
                .f_select(1, columns - 1)?,
        );
        start = end;
    }
    last.ok_or_else(|| Error::bug("nothing to read"))
}

fn shared_prefix(texts: &[&[i64]]) -> usize {
    let Some((first, rest)) = texts.split_first() else {
        return 0;
    };
    rest.iter().fold(first.len(), |len, text| {
        text.iter()
            .zip(*first)
            .take(len)
            .take_while(|(a, b)| a == b)
            .count()
    })
}
