//! Prompts as the UNet reads them: tokenized, through one text encoder or two, and turned into the
//! keys that its transformers ask in every step. What recurs is kept: a negative prompt is the same
//! for every picture, a style for every frame.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::Family;
use crate::error::{Error, Result};
use crate::models::attention::Keys;
use crate::models::clip::{ClipText, ClipTokenizer};
use crate::models::diffusion::unet::UNet;
use crate::models::folder::ModelFolder;
use crate::models::offload::Part;
use crate::tensor::Precision;

/// Bytes of keys that are kept, beside those in use: some thirty prompts of Stable Diffusion 1.5 in
/// f32, five of SDXL.
const KEPT: usize = 256 << 20;

/// What is said to the network about a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// A text.
    Text(String),
    /// Nothing at all, which for SDXL is not the empty text.
    Nothing,
}

impl Said {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Nothing => "",
        }
    }
}

/// A prompt that the UNet has read.
#[derive(Debug)]
pub(super) struct Prompt {
    /// What its transformers ask, of one picture.
    pub keys: Vec<Keys>,
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
    kept: Vec<(Said, Rc<Prompt>)>,
    most: usize,
}

#[derive(Debug)]
struct TextEncoder {
    tokenizer: ClipTokenizer,
    network: Part<ClipText>,
}

/// Where a pipeline's parts run, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub device: Device,
    pub precision: Precision,
    pub offload: bool,
}

impl TextEncoder {
    /// `text_encoder` and `tokenizer`, or with `number` `_2` behind their names.
    fn open(folder: &ModelFolder, number: &str, place: Place) -> Result<Self> {
        let part = folder.part(&format!("text_encoder{number}"))?;
        let tokenizer = ClipTokenizer::open(&folder.path().join(format!("tokenizer{number}")))?;
        let network = ClipText::open(&part, place.device, place.precision)?;
        if tokenizer.length() as i64 > network.config().positions {
            let (length, positions) = (tokenizer.length(), network.config().positions);
            return Err(Error::model(format!(
                "{}: a tokenizer of {length} tokens for {positions} positions",
                part.path().display()
            )));
        }
        Ok(Self {
            tokenizer,
            network: Part::new(network, place.device, place.offload)?,
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
    pub fn open(folder: &ModelFolder, family: Family, place: Place) -> Result<Self> {
        let numbers: &[&str] = match family {
            Family::Sd => &[""],
            Family::Xl => &["", "_2"],
        };
        let encoders = numbers
            .iter()
            .map(|number| TextEncoder::open(folder, number, place))
            .collect::<Result<_>>()?;
        Ok(Self {
            encoders,
            family,
            kept: Vec::new(),
            most: KEPT,
        })
    }

    /// Those of `said` that are not kept, once each, as the text encoders see them.
    ///
    /// # Errors
    /// Model, where a text cannot be tokenized; overload, where memory is short.
    pub fn encode(&mut self, said: &[Said]) -> Result<Vec<(Said, Encoded)>> {
        let mut fresh: Vec<&Said> = Vec::new();
        for said in said {
            if !fresh.contains(&said) && !self.kept.iter().any(|(kept, _)| kept == said) {
                fresh.push(said);
            }
        }
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<&str> = fresh.iter().map(|said| said.text()).collect();
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
        let row = |tensor: &Tensor, at: usize, said: &Said| -> Result<Tensor> {
            let row = tensor.f_narrow(0, at as i64, 1)?;
            Ok(if *said == Said::Nothing {
                row.f_zeros_like()?
            } else {
                row
            })
        };
        let encoded = |(at, said): (usize, &Said)| -> Result<_> {
            let pooled = pooled
                .as_ref()
                .map(|pooled| row(pooled, at, said))
                .transpose()?;
            Ok((
                said.clone(),
                Encoded {
                    states: row(&states, at, said)?,
                    pooled,
                },
            ))
        };
        fresh.into_iter().enumerate().map(encoded).collect()
    }

    /// What the UNet asks of each of `said`; `fresh` is what [`encode`](Self::encode) made of those
    /// that are not kept.
    ///
    /// # Errors
    /// Model, where the text encoders and the UNet do not fit one another; overload, where memory
    /// is short.
    pub fn read(
        &mut self,
        said: &[Said],
        fresh: Vec<(Said, Encoded)>,
        unet: &UNet,
    ) -> Result<Vec<Rc<Prompt>>> {
        for (said, encoded) in fresh {
            let prompt = Prompt {
                keys: unet.keys(&encoded.states)?,
                pooled: encoded.pooled,
            };
            self.kept.push((said, Rc::new(prompt)));
        }
        let mut read = Vec::with_capacity(said.len());
        for said in said {
            let at = self.kept.iter().position(|(kept, _)| kept == said);
            let found = self
                .kept
                .remove(at.ok_or_else(|| Error::bug("a prompt was not read"))?);
            read.push(Rc::clone(&found.1));
            self.kept.push(found);
        }
        self.forget();
        Ok(read)
    }

    /// Gives back the keys that lie longest unused, but for those in use.
    fn forget(&mut self) {
        let mut bytes: usize = self.kept.iter().map(|(_, prompt)| prompt.bytes()).sum();
        let most = self.most;
        self.kept.retain(|(_, prompt)| {
            let stays = bytes <= most || Rc::strong_count(prompt) > 1;
            bytes -= if stays { 0 } else { prompt.bytes() };
            stays
        });
    }

    /// Gives back all of them.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    #[cfg(test)]
    pub fn kept(&self) -> Vec<&Said> {
        self.kept.iter().map(|(said, _)| said).collect()
    }

    #[cfg(test)]
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.most = bytes;
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
pub(super) fn side_by_side(prompts: &[&Rc<Prompt>]) -> Result<Vec<Keys>> {
    let count = prompts.first().map_or(0, |prompt| prompt.keys.len());
    let join = |at: usize, part: fn(&Keys) -> &Tensor| -> Result<Tensor> {
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
            Ok(Keys {
                keys: join(at, |keys| &keys.keys)?,
                values: join(at, |keys| &keys.values)?,
            })
        })
        .collect()
}
