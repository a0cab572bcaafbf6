//! Text from a language model: prompts in, texts out, many at once. Rows that have ended leave the batch, so that no time goes into them.

mod sampling;
mod template;
mod tokenizer;

pub use sampling::{Sampler, Sampling};
pub use template::{Message, Template};
pub use tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::config::Config;
use crate::models::llama::Llama;
use crate::tensor::{Device, Kind, Precision, Tensor};
use serde_json::Value;
use tokenizer::Growing;

/// Room for this many tokens is made at the start; the cache grows beyond in steps.
const ROOM: u32 = 256;

/// A text that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What the user says.
    pub prompt: String,
    /// What the system says; the chat template may have words of its own where this is none.
    pub system: Option<String>,
    /// Tokens at most. The model's own limit cuts earlier.
    pub max_tokens: u32,
    /// See [`Sampling::temperature`]; 0 always takes the likeliest token.
    pub temperature: f32,
    /// See [`Sampling::top_p`]; 1 for all.
    pub top_p: f32,
    /// See [`Sampling::top_k`]; 0 for all.
    pub top_k: u32,
    /// See [`Sampling::repetition_penalty`]; 1 for none.
    pub repetition_penalty: f32,
    /// What the draws start from.
    pub seed: u64,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
}

impl Default for Request {
    fn default() -> Self {
        let Sampling { temperature, top_p, top_k, repetition_penalty, seed } = Sampling::default();
        Self { prompt: String::new(), system: None, max_tokens: 64, temperature, top_p, top_k, repetition_penalty, seed, stop: Vec::new() }
    }
}

impl Request {
    /// How its tokens are chosen.
    pub fn sampling(&self) -> Sampling {
        let Self { temperature, top_p, top_k, repetition_penalty, seed, .. } = *self;
        Sampling { temperature, top_p, top_k, repetition_penalty, seed }
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said so, or a stop sequence came.
    Stop,
    /// It reached `max_tokens`, or was cancelled.
    Length,
}

/// A text that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The text, without special tokens.
    pub text: String,
    /// Tokens written, the one that ends the text not counted.
    pub tokens: u32,
    /// Why it ended. A cancelled text ends by length.
    pub finish: Finish,
}

/// A decoder with its tokenizer.
#[derive(Debug)]
pub struct Generator {
    network: Llama,
    tokenizer: Tokenizer,
    ends: Vec<u32>,
}

/// One text under way.
struct Row {
    index: usize,
    sampler: Option<Sampler>,
    tokens: Vec<u32>,
    max_tokens: u32,
    stop: Vec<String>,
    growing: Growing,
    /// The text, where a stop sequence ended it.
    stopped: Option<String>,
    finish: Option<Finish>,
}

impl Generator {
    /// Reads a model folder: config.json, weights, tokenizer, and where they are there generation_config.json and the chat template.
    ///
    /// # Errors
    /// Config, where the folder lacks a file or is another network's; model, where a file is not what it should be; external, where one
    /// cannot be read; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        let network = Llama::load(folder, device, precision)?;
        let ends = match folder.file("generation_config.json") {
            Some(path) => ends(&Config::read(&path)?)?,
            None => Vec::new(),
        };
        let ends = if ends.is_empty() { self::ends(folder.config())? } else { ends };
        let ends = if ends.is_empty() { tokenizer.eos().into_iter().collect() } else { ends };
        Ok(Self { network, tokenizer, ends })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its network.
    pub fn network(&self) -> &Llama {
        &self.network
    }

    /// Refuses a request that [`generate`](Self::generate) would fail on, with all those beside it.
    ///
    /// # Errors
    /// Config, where a parameter has no meaning; model, where the prompt is empty or too long for the model, or its chat template or
    /// tokenizer refuses it.
    pub fn check(&self, request: &Request) -> Result<()> {
        self.encode(request).map(drop)
    }

    /// Writes a text for every request, in their order, all in one batch. `cancelled` is asked with a request's index between tokens;
    /// a cancelled text is left as it is. A text does not depend on what else is in the batch, but for the rounding of sums.
    ///
    /// # Errors
    /// As for [`check`](Self::check); overload, where memory is short: fewer requests at once may pass.
    pub fn generate(&self, requests: &[Request], cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Generation>> {
        let prompts = requests.iter().map(|request| self.encode(request)).collect::<Result<Vec<_>>>()?;
        let rows = requests.iter().zip(&prompts).enumerate().map(|(index, (request, prompt))| self.row(index, request, prompt)).collect();
        let rows = self.write(rows, &prompts, cancelled)?;
        rows.into_iter().map(|row| self.generation(row)).collect()
    }

    fn encode(&self, request: &Request) -> Result<Vec<u32>> {
        request.sampling().check()?;
        let tokens = self.tokenizer.encode_chat(request.system.as_deref(), &request.prompt)?;
        let config = self.network.config();
        if tokens.is_empty() {
            return Err(Error::model("an empty prompt"));
        }
        if tokens.len() as i64 >= config.max_position_embeddings {
            let limit = config.max_position_embeddings;
            return Err(Error::model(format!("a prompt of {} tokens fills the model's {limit}", tokens.len())).hint("shorten the prompt"));
        }
        match tokens.iter().find(|&&token| i64::from(token) >= config.vocab_size) {
            Some(token) => Err(Error::model(format!("the tokenizer has token {token}, the network only {}", config.vocab_size))),
            None => Ok(tokens),
        }
    }

    fn row(&self, index: usize, request: &Request, prompt: &[u32]) -> Row {
        let sampling = request.sampling();
        let room = self.network.config().max_position_embeddings - prompt.len() as i64;
        Row {
            index,
            sampler: (!sampling.is_argmax()).then(|| Sampler::new(sampling, prompt)),
            tokens: Vec::new(),
            max_tokens: request.max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX)),
            stop: request.stop.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            growing: Growing::default(),
            stopped: None,
            finish: (request.max_tokens == 0).then_some(Finish::Length),
        }
    }

    /// Runs rows to their end; returns them in the order of their index.
    fn write(&self, rows: Vec<Row>, prompts: &[Vec<u32>], cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Row>> {
        let (mut ended, mut live): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.finish.is_some() || cancelled(row.index));
        if !live.is_empty() {
            let texts: Vec<Vec<i64>> = live.iter().map(|row| prompts[row.index].iter().map(|&token| i64::from(token)).collect()).collect();
            let texts: Vec<&[i64]> = texts.iter().map(Vec::as_slice).collect();
            let further = live.iter().map(|row| row.max_tokens).max().unwrap_or(0).min(ROOM);
            let (mut cache, mut logits) = self.network.start(&texts, i64::from(further))?;
            loop {
                let tokens = choose(&logits, &mut live)?;
                for (row, &token) in live.iter_mut().zip(&tokens) {
                    row.push(token, self)?;
                }
                let keep: Vec<usize> = (0..live.len()).filter(|&n| live[n].finish.is_none() && !cancelled(live[n].index)).collect();
                if keep.len() < live.len() {
                    if keep.is_empty() {
                        break;
                    }
                    cache.keep(&keep)?;
                    let mut stays = vec![false; live.len()];
                    keep.iter().for_each(|&n| stays[n] = true);
                    let mut stays = stays.into_iter();
                    ended.extend(live.extract_if(.., |_| !stays.next().unwrap_or(true)));
                }
                let next: Vec<i64> = keep.iter().map(|&n| i64::from(tokens[n])).collect();
                logits = self.network.step(&mut cache, &next)?;
            }
        }
        ended.append(&mut live);
        ended.sort_unstable_by_key(|row| row.index);
        Ok(ended)
    }

    fn generation(&self, row: Row) -> Result<Generation> {
        let text = match row.stopped {
            Some(text) => text,
            None => self.tokenizer.decode(&row.tokens)?,
        };
        Ok(Generation { text, tokens: row.tokens.len() as u32, finish: row.finish.unwrap_or(Finish::Length) })
    }
}

impl Row {
    fn push(&mut self, token: u32, generator: &Generator) -> Result<()> {
        if generator.ends.contains(&token) {
            self.finish = Some(Finish::Stop);
            return Ok(());
        }
        self.tokens.push(token);
        if !self.stop.is_empty() {
            let text = self.growing.read(&generator.tokenizer, &self.tokens)?;
            if let Some(end) = self.stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
                text.truncate(end);
                self.stopped = Some(std::mem::take(text));
                self.finish = Some(Finish::Stop);
                return Ok(());
            }
        }
        if self.tokens.len() as u32 >= self.max_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(())
    }
}

/// The next token of every row. Logits leave the device only where their values matter.
fn choose(logits: &Tensor, rows: &mut [Row]) -> Result<Vec<u32>> {
    let likeliest = Vec::<i64>::try_from(logits.f_argmax(1, false)?.f_to(Device::Cpu)?)?;
    let mut tokens: Vec<u32> = likeliest.into_iter().map(|token| token as u32).collect();
    let mut values = Vec::new();
    for (n, row) in rows.iter_mut().enumerate() {
        if let Some(sampler) = &mut row.sampler {
            let own = logits.f_select(0, n as i64)?.f_to(Device::Cpu)?;
            values.resize(own.numel(), 0.0);
            own.f_to_kind(Kind::Float)?.f_copy_data(&mut values, own.numel())?;
            tokens[n] = sampler.choose(&mut values)?;
        }
    }
    Ok(tokens)
}

/// `eos_token_id`: a number or a list of them.
fn ends(config: &Config) -> Result<Vec<u32>> {
    let Some(field) = config.field("eos_token_id") else { return Ok(Vec::new()) };
    let listed = field.as_array().map_or(std::slice::from_ref(field), Vec::as_slice);
    let ends: Option<Vec<u32>> = listed.iter().map(|id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
    ends.ok_or_else(|| config.error(format_args!("`eos_token_id` must be a token's number or a list of them, it is {field}")))
}

#[cfg(test)]
mod tests;
