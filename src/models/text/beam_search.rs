//! Beam search, token by token as transformers has it (`GenerationMixin._beam_search`): the
//! likeliest open texts are followed together, those that end are kept by their score, and it stops
//! when no open one is likely to become better.

use super::generation_config::{EarlyStopping, Finish, Generation};
use super::text_generator::{GenerationJob, NextToken, TextGenerator, first_of, on_host};
use crate::error::{Error, Result};
use crate::tensor::{Device, Kind, Tensor};

/// The search for one prompt.
#[derive(Debug)]
pub(super) struct BeamSearch<'a> {
    job: GenerationJob<'a>,
    max_tokens: usize,
    /// The open texts, best first, all of one length, each with the row of its number; at the start
    /// one without tokens.
    open: Vec<Text>,
    /// The best of those that have ended, best first.
    finished: Vec<Text>,
    /// Whether an open text may still become better than those that have ended. Once it is not, it
    /// stays so.
    improvable: bool,
    live: bool,
}

#[derive(Debug, Clone)]
struct Text {
    /// The log-probability; of a text that has ended, over its length to the power of the penalty.
    score: f32,
    tokens: Vec<u32>,
    /// The text, where a stop sequence ended it.
    stopped: Option<String>,
    finish: Option<Finish>,
}

/// An open text with a token more.
struct Candidate {
    row: usize,
    token: u32,
    text: Text,
}

impl<'a> BeamSearch<'a> {
    /// Of texts of at most `max_tokens`.
    pub fn new(job: GenerationJob<'a>, max_tokens: u32) -> Self {
        let open = vec![Text {
            score: 0.0,
            tokens: Vec::new(),
            stopped: None,
            finish: None,
        }];
        Self {
            job,
            max_tokens: max_tokens as usize,
            open,
            finished: Vec::new(),
            improvable: true,
            live: max_tokens > 0,
        }
    }

    /// Whether there is anything to write.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Follows the open texts by a token, given the logits of their rows.
    pub fn advance(&mut self, logits: &Tensor, writer: &TextGenerator) -> Result<Vec<NextToken>> {
        let width = self.width();
        let candidates = self.candidates(logits, writer)?;
        let length = self.open.first().map_or(0, |text| text.tokens.len()) + 1;
        // Ends count only among the best of them; the others are there so that enough texts stay
        // open.
        for candidate in candidates
            .iter()
            .take(width)
            .filter(|candidate| candidate.text.finish.is_some())
        {
            self.finish(&candidate.text, length);
        }
        let open: Vec<Candidate> = candidates
            .into_iter()
            .filter(|candidate| candidate.text.finish.is_none())
            .take(width)
            .collect();
        let moves = open
            .iter()
            .map(|candidate| NextToken {
                row: candidate.row,
                token: candidate.token,
            })
            .collect();
        self.open = open.into_iter().map(|candidate| candidate.text).collect();
        self.improvable &= self.may_improve(length);
        self.live = self.improvable && !self.is_full() && !self.open.is_empty();
        Ok(if self.live { moves } else { Vec::new() })
    }

    /// The best texts as they are now: those that have ended, or where it was cancelled before any
    /// had, the open ones.
    pub fn generations(self, writer: &TextGenerator) -> Result<Vec<Generation>> {
        let Self {
            job,
            open,
            finished,
            ..
        } = self;
        let generation = |text: Text| {
            let written = writer.text(&job, &text.tokens, text.stopped)?;
            Ok(Generation {
                text: written,
                tokens: text.tokens,
                finish: text.finish.unwrap_or(Finish::Length),
                score: Some(text.score),
            })
        };
        // Before the first token there is one open text for all.
        let rest = open
            .iter()
            .cycle()
            .take(job.writing.variants as usize)
            .cloned();
        finished
            .into_iter()
            .chain(rest)
            .take(job.writing.variants as usize)
            .map(generation)
            .collect()
    }

    fn width(&self) -> usize {
        self.job.writing.search.beams as usize
    }

    /// The best continuations of all open texts, best first.
    fn candidates(&self, logits: &Tensor, writer: &TextGenerator) -> Result<Vec<Candidate>> {
        let mut scores = logits.f_log_softmax(-1, Kind::Float)?;
        if !self.job.writing.penalties.is_none() {
            scores = self.penalised(&scores, writer.ends())?;
        }
        let so_far: Vec<f32> = self.open.iter().map(|text| text.score).collect();
        let vocabulary = scores.size()[1];
        let scores = scores
            .f_add_(
                &Tensor::f_from_slice(&so_far)?
                    .f_to(scores.device())?
                    .f_view([-1, 1])?,
            )?
            .f_view([-1])?;
        // As many as leave enough open ones if every open text is ended by every end.
        let count = (self.width() * (1 + writer.ends().len()).max(2)) as i64;
        let (best, places) = scores.f_topk(count.min(scores.size()[0]), -1, true, true)?;
        let (best, places) = (
            Vec::<f32>::try_from(best.f_to(Device::Cpu)?)?,
            Vec::<i64>::try_from(places.f_to(Device::Cpu)?)?,
        );
        if best.first().is_none_or(|score| !score.is_finite()) {
            return Err(Error::model("the network yields no finite logits"));
        }
        // What the penalties forbid is no continuation.
        let allowed = best
            .into_iter()
            .zip(places)
            .filter(|(score, _)| score.is_finite());
        allowed
            .map(|(score, place)| {
                self.candidate(
                    (place / vocabulary) as usize,
                    (place % vocabulary) as u32,
                    score,
                    writer,
                )
            })
            .collect()
    }

    fn candidate(
        &self,
        row: usize,
        token: u32,
        score: f32,
        writer: &TextGenerator,
    ) -> Result<Candidate> {
        let mut text = Text {
            score,
            ..self.open[row].clone()
        };
        let length = text.tokens.len() + 1;
        if writer.ends().contains(&token) {
            text.finish = Some(Finish::Stop);
            return Ok(Candidate { row, token, text });
        }
        text.tokens.push(token);
        if !self.job.writing.stop.is_empty() {
            let mut written = writer.tokenizer().decode(&text.tokens)?;
            if let Some(end) = first_of(&self.job.writing.stop, &written) {
                written.truncate(end);
                (text.stopped, text.finish) = (Some(written), Some(Finish::Stop));
            }
        }
        if length >= self.max_tokens {
            text.finish = text.finish.or(Some(Finish::Length));
        }
        Ok(Candidate { row, token, text })
    }

    fn penalised(&self, scores: &Tensor, ends: &[u32]) -> Result<Tensor> {
        let mut all = Vec::with_capacity(scores.numel());
        for (row, text) in self.open.iter().enumerate() {
            let mut own = on_host(&scores.f_select(0, row as i64)?)?;
            self.job
                .writing
                .penalties
                .apply(&mut own, self.job.prompt, &text.tokens, ends);
            all.append(&mut own);
        }
        Ok(Tensor::f_from_slice(&all)?
            .f_to(scores.device())?
            .f_view_as(scores)?)
    }

    fn finish(&mut self, text: &Text, length: usize) {
        if !self.improvable || self.is_full() {
            return;
        }
        self.finished.push(Text {
            score: self.ranked(text.score, length),
            ..text.clone()
        });
        // Of equals the earlier one stays.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(self.width());
    }

    /// Whether there are enough ended texts, and the search is to stop then.
    fn is_full(&self) -> bool {
        self.job.writing.search.early == EarlyStopping::First && self.finished.len() == self.width()
    }

    fn may_improve(&self, length: usize) -> bool {
        let search = &self.job.writing.search;
        let (Some(best), Some(worst)) = (self.open.first(), self.finished.get(self.width() - 1))
        else {
            return true;
        };
        let longest = search.early == EarlyStopping::Never && search.length_penalty > 0.0;
        self.ranked(best.score, if longest { self.max_tokens } else { length }) > worst.score
    }

    fn ranked(&self, score: f32, length: usize) -> f32 {
        score / (length as f64).powf(f64::from(self.job.writing.search.length_penalty)) as f32
    }
}
