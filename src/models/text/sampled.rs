//! Texts written one token after the other, each the likeliest or drawn: several for one prompt,
//! each from a seed of its own.

use super::detokenizer::IncrementalDetokenizer;
use super::generation_config::{Finish, Generation};
use super::sampler::Sampler;
use super::text_generator::{GenerationJob, NextToken, TextGenerator, first_of, on_host};
use crate::error::Result;
use crate::tensor::Tensor;

/// The texts of one prompt under way.
#[derive(Debug)]
pub(super) struct SampledTexts<'a> {
    job: GenerationJob<'a>,
    max_tokens: u32,
    /// In the order of their rows; before the first token there is one row for all.
    live: Vec<SampledText>,
    ended: Vec<SampledText>,
    fresh: bool,
}

#[derive(Debug)]
struct SampledText {
    variant: u32,
    /// None where the likeliest token is always the one, so that nothing but its number need be
    /// known.
    sampler: Option<Sampler>,
    tokens: Vec<u32>,
    detokenizer: IncrementalDetokenizer,
    /// The text, where a stop sequence ended it.
    stopped: Option<String>,
    finish: Option<Finish>,
}

impl<'a> SampledTexts<'a> {
    /// Of at most `max_tokens`.
    pub fn new(job: GenerationJob<'a>, max_tokens: u32) -> Self {
        let writing = job.writing;
        let plain = writing.sampling.is_argmax() && writing.penalties.is_none();
        let draw = |variant| SampledText {
            variant,
            sampler: (!plain).then(|| Sampler::new(writing.sampling.variant(variant))),
            tokens: Vec::new(),
            detokenizer: IncrementalDetokenizer::default(),
            stopped: None,
            finish: None,
        };
        let draws: Vec<SampledText> = (0..writing.variants).map(draw).collect();
        let (live, ended) = if max_tokens == 0 {
            (Vec::new(), draws)
        } else {
            (draws, Vec::new())
        };
        Self {
            job,
            max_tokens,
            live,
            ended,
            fresh: true,
        }
    }

    /// Whether there is anything to write.
    pub fn is_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Takes a token for each text from the logits of its row.
    pub fn advance(
        &mut self,
        logits: &Tensor,
        likeliest: &[i64],
        writer: &TextGenerator,
    ) -> Result<Vec<NextToken>> {
        let fresh = std::mem::take(&mut self.fresh);
        let (mut moves, mut live) = (Vec::new(), Vec::new());
        for (at, mut draw) in std::mem::take(&mut self.live).into_iter().enumerate() {
            let row = if fresh { 0 } else { at };
            let token = match &mut draw.sampler {
                None => likeliest[row] as u32,
                Some(sampler) => {
                    let mut scores = on_host(&logits.f_select(0, row as i64)?)?;
                    self.job.writing.penalties.apply(
                        &mut scores,
                        self.job.prompt,
                        &draw.tokens,
                        writer.ends(),
                    );
                    sampler.choose(&scores)?
                }
            };
            draw.push(token, &self.job, self.max_tokens, writer)?;
            if draw.finish.is_some() {
                self.ended.push(draw);
            } else {
                moves.push(NextToken { row, token });
                live.push(draw);
            }
        }
        self.live = live;
        Ok(moves)
    }

    /// The texts as they are now, by their number.
    pub fn generations(mut self, writer: &TextGenerator) -> Result<Vec<Generation>> {
        self.ended.append(&mut self.live);
        self.ended.sort_unstable_by_key(|draw| draw.variant);
        let generation = |draw: SampledText| {
            let text = writer.text(&self.job, &draw.tokens, draw.stopped)?;
            Ok(Generation {
                text,
                tokens: draw.tokens,
                finish: draw.finish.unwrap_or(Finish::Length),
                score: None,
            })
        };
        self.ended.into_iter().map(generation).collect()
    }
}

impl SampledText {
    fn push(
        &mut self,
        token: u32,
        job: &GenerationJob<'_>,
        max_tokens: u32,
        writer: &TextGenerator,
    ) -> Result<()> {
        if writer.ends().contains(&token) {
            self.finish = Some(Finish::Stop);
            return Ok(());
        }
        self.tokens.push(token);
        if !job.writing.stop.is_empty() {
            let text = self.detokenizer.read(writer.tokenizer(), &self.tokens)?;
            if let Some(end) = first_of(&job.writing.stop, text) {
                text.truncate(end);
                self.stopped = Some(std::mem::take(text));
                self.finish = Some(Finish::Stop);
                return Ok(());
            }
        }
        if self.tokens.len() as u32 >= max_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(())
    }
}
