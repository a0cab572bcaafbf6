//! CaptionDecoder of what is shown: a decoder over pictures or videos, with its tokenizer, the
//! token that its texts start with and those they end with.

use super::decoder::{ConditionedDecoder, CrossAttentionDecoder};
use super::text::{Generation, GenerationConfig, GenerationJob, TextGenerator};
use crate::error::{Error, Result};
use crate::tensor::{Device, Tensor, guard};

/// A decoder that writes about something, with its tokenizer.
#[derive(Debug)]
pub struct CaptionDecoder {
    network: CrossAttentionDecoder,
    writer: TextGenerator,
    start: u32,
}

/// A caption that is asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CaptionRequest {
    /// What it begins with; often nothing.
    pub begin: String,
    /// How it goes on.
    pub writing: GenerationConfig,
}

impl CaptionDecoder {
    /// Texts that begin with the token `start`.
    ///
    /// # Errors
    /// Model, where the network has no such token.
    pub fn build(
        network: CrossAttentionDecoder,
        writer: TextGenerator,
        start: i64,
    ) -> Result<Self> {
        let count = network.token_embedding.weight().size()[0];
        match u32::try_from(start) {
            Ok(start) if i64::from(start) < count => Ok(Self {
                network,
                writer,
                start,
            }),
            _ => Err(Error::model(format!(
                "a text cannot start with token {start} of {count}"
            ))),
        }
    }

    /// Width of what it writes about.
    pub fn width(&self) -> i64 {
        self.network.context
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.network.device
    }

    /// Refuses what [`write`](Self::write) would fail on, with all beside it.
    ///
    /// # Errors
    /// Config, where the writing contradicts itself; model, where the beginning is too long or
    /// cannot be tokenized.
    pub fn check(&self, request: &CaptionRequest) -> Result<()> {
        self.encode(request).map(drop)
    }

    /// CaptionDecoder about `states`, `[n, length, width]` of any number format, one request each;
    /// those of each request are its variants, in their order. `cancelled` as in
    /// [`TextGenerator::write`].
    ///
    /// # Errors
    /// As for [`check`](Self::check); model, where `states` has another shape; overload, where
    /// memory is short.
    pub fn write(
        &self,
        states: &Tensor,
        requests: &[&CaptionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>> {
        let _frozen = guard();
        if states.size().first() != Some(&(requests.len() as i64)) {
            return Err(Error::bug(format!(
                "{} captions are asked for about {:?}",
                requests.len(),
                states.size()
            )));
        }
        let over = self.over(states)?;
        let prompts = requests
            .iter()
            .map(|request| self.encode(request))
            .collect::<Result<Vec<_>>>()?;
        let jobs: Vec<GenerationJob<'_>> = requests
            .iter()
            .zip(&prompts)
            .map(|(request, prompt)| GenerationJob {
                prompt,
                begin: prompt.len() - 1,
                writing: &request.writing,
            })
            .collect();
        self.writer.write(&over, &jobs, cancelled)
    }

    /// The decoder over `states`, as [`write`](Self::write) takes them.
    pub(super) fn over(&self, states: &Tensor) -> Result<ConditionedDecoder<'_>> {
        self.network.over(
            &states
                .f_to_kind(self.network.kind)?
                .f_to_device(self.network.device)?,
        )
    }

    /// The token that texts start with, and what this one begins with.
    fn encode(&self, request: &CaptionRequest) -> Result<Vec<u32>> {
        request.writing.check()?;
        let mut tokens = vec![self.start];
        tokens.extend(self.writer.tokenizer().encode(&request.begin)?);
        let (vocabulary, positions) = (
            self.network.token_embedding.weight().size()[0],
            self.network.position_embedding.size()[0],
        );
        self.writer.check(&tokens, vocabulary, positions)?;
        Ok(tokens)
    }
}
