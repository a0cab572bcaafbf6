//! Prompts as the UNet reads them: tokenized, through one text encoder or two, and turned into the
//! keys that its transformers ask in every step. What recurs is kept: a negative prompt is the same
//! for every picture, a style for every frame.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::family::Family;
use crate::error::{Error, Result};
use crate::models::attention::KeyValue;
use crate::models::clip::{ClipText, ClipTokenizer};
use crate::models::diffusion::unet::UNet;
use crate::models::folder::ModelFolder;
use crate::models::offload::Offloaded;
use crate::tensor::Precision;

/// Bytes of keys that are cached, beside those in use: some thirty prompts of Stable Diffusion 1.5
/// in f32, five of SDXL.
const MAX_CACHED_BYTES: usize = 256 << 20;

/// What a text encoder is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PromptInput {
    /// A text.
    Text(String),
    /// Zeros instead of states, which for SDXL is not the empty text.
    Zeros,
}

impl PromptInput {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Zeros => "",
        }
    }
}

/// A prompt that the UNet has read.
#[derive(Debug)]
pub(super) struct Prompt {
    /// What its transformers ask, of one picture.
    pub keys: Vec<KeyValue>,
    /// `[1, pooled]`, where the family has it.
    pub pooled: Option<Tensor>,
}

/// What text encoders made of a text: `[1, t, context]`, and what they pooled.
#[derive(Debug)]
pub(super) struct Encoded {
    states: Tensor,
    pooled: Option<Tensor>,
}

/// The text encoders of a pipeline, with what they were asked before.
#[derive(Debug)]
pub(super) struct Prompts {
    encoders: Vec<TextEncoder>,
    family: Family,
    /// The latest last.
    cached: Vec<(PromptInput, Rc<Prompt>)>,
    max_bytes: usize,
}

#[derive(Debug)]
struct TextEncoder {
    tokenizer: ClipTokenizer,
    network: Offloaded<ClipText>,
}

/// Where a pipeline's parts run, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub device: Device,
    pub precision: Precision,
    pub offload: bool,
}

impl TextEncoder {
    /// `text_encoder` and `tokenizer`, or with `number` `_2` behind their names.
    fn load(folder: &ModelFolder, number: &str, placement: Placement) -> Result<Self> {
        let part = folder.part(&format!("text_encoder{number}"))?;
        let tokenizer = ClipTokenizer::load(&folder.path().join(format!("tokenizer{number}")))?;
        let network = ClipText::load(&part, placement.device, placement.precision)?;
        if tokenizer.length() as i64 > network.config().positions {
            let (length, positions) = (tokenizer.length(), network.config().positions);
            return Err(Error::model(format!(
                "{}: a tokenizer of {length} tokens for {positions} positions",
                part.path().display()
            )));
        }
        Ok(Self {
            tokenizer,
            network: Offloaded::build(network, placement.device, placement.offload)?,
        })
    }

    /// `[n, t, width]` and what is pooled, where the network has a projection.
    fn encode(&mut self, texts: &[&str], family: Family) -> Result<(Tensor, Option<Tensor>)> {
        let rows: Vec<Vec<i64>> = texts
            .iter()
            .map(|text| self.tokenizer.tokens(text))
            .collect::<Result<_>>()?;
        let tokens = Tensor::f_from_slice(&rows.concat())?
            .f_view([texts.len() as i64, self.tokenizer.length() as i64])?;
        self.network.with(|network| {
            // SDXL was trained on what comes before the last layer, the others on what comes out.
            let penultimate = (network.config().tower.layers - 1).max(0) as usize;
            match family {
                Family::Sd => Ok((network.forward(&tokens, &[])?.last, None)),
                Family::Xl => {
                    let mut made = network.forward(&tokens, &[penultimate])?;
                    let states = made
                        .hidden
                        .pop()
                        .ok_or_else(|| Error::bug("a text encoder left a state out"))?;
                    Ok((states, made.projected))
                }
            }
        })
    }
}

impl Prompts {
    /// The text encoders and tokenizers of a pipeline's folder.
    ///
    /// # Errors
    /// Config, where one is not there; model, where one does not fit.
    pub fn load(folder: &ModelFolder, family: Family, placement: Placement) -> Result<Self> {
        let numbers: &[&str] = match family {
            Family::Sd => &[""],
            Family::Xl => &["", "_2"],
        };
        let encoders = numbers
            .iter()
            .map(|number| TextEncoder::load(folder, number, placement))
            .collect::<Result<_>>()?;
        Ok(Self {
            encoders,
            family,
            cached: Vec::new(),
            max_bytes: MAX_CACHED_BYTES,
        })
    }

    /// Those of `inputs` that are not cached, once each, as the text encoders see them.
    ///
    /// # Errors
    /// Model, where a text cannot be tokenized; overload, where memory is short.
    pub fn encode(&mut self, inputs: &[PromptInput]) -> Result<Vec<(PromptInput, Encoded)>> {
        let mut uncached: Vec<&PromptInput> = Vec::new();
        for input in inputs {
            if !uncached.contains(&input) && !self.cached.iter().any(|(cached, _)| cached == input)
            {
                uncached.push(input);
            }
        }
        if uncached.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<&str> = uncached.iter().map(|input| input.text()).collect();
        let (mut states, mut pooled) = (Vec::new(), None);
        for encoder in &mut self.encoders {
            let (made, projected) = encoder.encode(&texts, self.family)?;
            states.push(made);
            pooled = projected.or(pooled);
        }
        let states = Tensor::f_cat(&states, 2)?;
        if self.family == Family::Xl && pooled.is_none() {
            return Err(Error::model(
                "neither text encoder has a projection, which SDXL needs",
            ));
        }
        let row = |tensor: &Tensor, at: usize, input: &PromptInput| -> Result<Tensor> {
            let row = tensor.f_narrow(0, at as i64, 1)?;
            Ok(if *input == PromptInput::Zeros {
                row.f_zeros_like()?
            } else {
                row
            })
        };
        let encoded = |(at, input): (usize, &PromptInput)| -> Result<_> {
            let pooled = pooled
                .as_ref()
                .map(|pooled| row(pooled, at, input))
                .transpose()?;
            Ok((
                input.clone(),
                Encoded {
                    states: row(&states, at, input)?,
                    pooled,
                },
            ))
        };
        uncached.into_iter().enumerate().map(encoded).collect()
    }

    /// What the UNet asks of each of `inputs`; `uncached` is what [`encode`](Self::encode) made of
    /// those that are not cached.
    ///
    /// # Errors
    /// Model, where the text encoders and the UNet do not fit one another; overload, where memory
    /// is short.
    pub fn read(
        &mut self,
        inputs: &[PromptInput],
        uncached: Vec<(PromptInput, Encoded)>,
        unet: &UNet,
    ) -> Result<Vec<Rc<Prompt>>> {
        for (input, encoded) in uncached {
            let prompt = Prompt {
                keys: unet.keys(&encoded.states)?,
                pooled: encoded.pooled,
            };
            self.cached.push((input, Rc::new(prompt)));
        }
        let mut read = Vec::with_capacity(inputs.len());
        for input in inputs {
            let at = self.cached.iter().position(|(cached, _)| cached == input);
            let found = self
                .cached
                .remove(at.ok_or_else(|| Error::bug("a prompt was not read"))?);
            read.push(Rc::clone(&found.1));
            self.cached.push(found);
        }
        self.evict();
        Ok(read)
    }

    /// Gives back the keys that lie longest unused, but for those in use.
    fn evict(&mut self) {
        let mut bytes: usize = self.cached.iter().map(|(_, prompt)| prompt.bytes()).sum();
        let max_bytes = self.max_bytes;
        self.cached.retain(|(_, prompt)| {
            let stays = bytes <= max_bytes || Rc::strong_count(prompt) > 1;
            bytes -= if stays { 0 } else { prompt.bytes() };
            stays
        });
    }

    /// Gives back all of them.
    pub fn clear(&mut self) {
        self.cached.clear();
    }

    #[cfg(test)]
    pub fn cached(&self) -> Vec<&PromptInput> {
        self.cached.iter().map(|(input, _)| input).collect()
    }

    #[cfg(test)]
    pub fn limit_to(&mut self, bytes: usize) {
        self.max_bytes = bytes;
    }
}

impl Prompt {
    fn bytes(&self) -> usize {
        let size =
            |tensor: &Tensor| tensor.numel() * if tensor.kind() == Kind::Float { 4 } else { 2 };
        self.keys
            .iter()
            .map(|keys| size(&keys.keys) + size(&keys.values))
            .sum()
    }
}

/// The keys of several prompts as those of a batch, in their order.
///
/// # Errors
/// Overload, where memory is short.
pub(super) fn concatenated(prompts: &[&Rc<Prompt>]) -> Result<Vec<KeyValue>> {
    let count = prompts.first().map_or(0, |prompt| prompt.keys.len());
    let join = |at: usize, part: fn(&KeyValue) -> &Tensor| -> Result<Tensor> {
        let parts: Vec<&Tensor> = prompts
            .iter()
            .map(|prompt| part(&prompt.keys[at]))
            .collect();
        Ok(if let [one] = parts.as_slice() {
            one.shallow_clone()
        } else {
            Tensor::f_cat(&parts, 0)?
        })
    };
    (0..count)
        .map(|at| {
            Ok(KeyValue {
                keys: join(at, |keys| &keys.keys)?,
                values: join(at, |keys| &keys.values)?,
            })
        })
        .collect()
}
