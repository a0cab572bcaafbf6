//! Writes texts with a decoder, many at once: each step every text takes the tokens that its
//! strategy gives, and rows that have ended leave the batch, so that no time goes into them. A
//! prompt is read once, however many texts follow from it.

use super::beam_search::BeamSearch;
use super::generation_config::Generation;
use super::sampled::SampledTexts;
use super::text_generator::{GenerationJob, NextToken, TextGenerator};
use crate::error::Result;
use crate::models::decoder::{Cache, Decoder};
use crate::tensor::{Device, Tensor, guard};

/// Room for this many tokens is made at the start; the cache grows beyond in steps.
const ROOM: u32 = 256;

/// How the texts of a prompt are chosen.
#[derive(Debug)]
enum DecodingStrategy<'a> {
    SampledTexts(SampledTexts<'a>),
    BeamSearch(BeamSearch<'a>),
}

impl<'a> DecodingStrategy<'a> {
    fn new(job: GenerationJob<'a>, max_tokens: u32) -> Self {
        if job.writing.search.beams > 1 {
            Self::BeamSearch(BeamSearch::new(job, max_tokens))
        } else {
            Self::SampledTexts(SampledTexts::new(job, max_tokens))
        }
    }

    fn is_live(&self) -> bool {
        match self {
            Self::SampledTexts(draws) => draws.is_live(),
            Self::BeamSearch(beams) => beams.is_live(),
        }
    }

    fn advance(
        &mut self,
        logits: &Tensor,
        likeliest: &[i64],
        writer: &TextGenerator,
    ) -> Result<Vec<NextToken>> {
        match self {
            _ if !self.is_live() => Ok(Vec::new()),
            Self::SampledTexts(draws) => draws.advance(logits, likeliest, writer),
            Self::BeamSearch(beams) => beams.advance(logits, writer),
        }
    }

    fn generations(self, writer: &TextGenerator) -> Result<Vec<Generation>> {
        match self {
            Self::SampledTexts(draws) => draws.generations(writer),
            Self::BeamSearch(beams) => beams.generations(writer),
        }
    }
}

impl TextGenerator {
    /// Writes the texts of every job, in their order, all in one batch; job `n` is about the
    /// decoder's `n`th context, where it has contexts. `cancelled` is asked with a job's number
    /// between tokens; a cancelled text is left as it is. A text does not depend on what else is in
    /// the batch, but for the rounding of sums.
    ///
    /// # Errors
    /// Model, where a text cannot be decoded or the logits are no numbers; overload, where memory
    /// is short: fewer jobs at once may pass.
    pub fn write<D: Decoder>(
        &self,
        decoder: &D,
        jobs: &[GenerationJob<'_>],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>> {
        let _frozen = guard();
        let room = |job: &GenerationJob<'_>| {
            u32::try_from(decoder.positions() - job.prompt.len() as i64).unwrap_or(0)
        };
        let longest = |job: &GenerationJob<'_>| job.writing.max_tokens.min(room(job));
        let mut ways: Vec<DecodingStrategy<'_>> = jobs
            .iter()
            .map(|job| DecodingStrategy::new(*job, longest(job)))
            .collect();
        if ways.iter().any(DecodingStrategy::is_live) {
            let further = jobs.iter().map(longest).max().unwrap_or(0).min(ROOM);
            let prompts: Vec<Vec<i64>> = jobs
                .iter()
                .map(|job| job.prompt.iter().map(|&token| i64::from(token)).collect())
                .collect();
            let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
            let (mut cache, mut logits) = decoder.start(&prompts, i64::from(further))?;
            // The jobs under way, each with the number of its rows.
            let mut live: Vec<(usize, usize)> = (0..jobs.len()).map(|job| (job, 1)).collect();
            loop {
                let (rows, tokens) = self.advance(&mut ways, &mut live, &logits, cancelled)?;
                if rows.is_empty() {
                    break;
                }
                cache.keep(&rows)?;
                logits = decoder.step(&mut cache, &tokens)?;
            }
        }
        ways.into_iter().map(|way| way.generations(self)).collect()
    }

    /// A step of every way: the rows to go on with, and the token that each takes.
    fn advance(
        &self,
        ways: &mut [DecodingStrategy<'_>],
        live: &mut Vec<(usize, usize)>,
        logits: &Tensor,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<(Vec<usize>, Vec<i64>)> {
        let likeliest = Vec::<i64>::try_from(logits.f_argmax(1, false)?.f_to(Device::Cpu)?)?;
        let (mut rows, mut tokens, mut first) = (Vec::new(), Vec::new(), 0);
        for (job, count) in live.iter_mut() {
            let own = logits.f_narrow(0, first as i64, *count as i64)?;
            let mut moves = ways[*job].advance(&own, &likeliest[first..first + *count], self)?;
            if cancelled(*job) {
                moves.clear();
            }
            rows.extend(moves.iter().map(|step| first + step.row));
            tokens.extend(moves.iter().map(|step| i64::from(step.token)));
            first += *count;
            *count = moves.len();
        }
        live.retain(|(_, count)| *count > 0);
        Ok((rows, tokens))
    }
}
