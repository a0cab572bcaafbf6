//! The passes over a window: each writes what is said from a point on, again at higher temperatures
//! where the text is doubtful, and says where the next one begins. After transformers'
//! `WhisperGenerationMixin.generate`.

use super::config::{FRAME_SECONDS, HOP, SAMPLE_RATE, SpecialTokens};
use super::decode::{DecodeOutput, DecodeRequest};
use super::decoded_pass::DecodedPass;
use super::network::Network;
use super::segments::{TimedSpan, split};
use super::transcription::{
    Segment, Task, Transcription, TranscriptionOptions, TranscriptionRequest, Word,
};
use super::words::words;
use crate::error::{Error, Result};
use crate::models::decoder::CrossContext;
use crate::models::text::Tokenizer;
use crate::tensor::Tensor;

/// At or above this temperature a text is too free to be a guide to the next pass.
const MAX_GUIDE_TEMPERATURE: f32 = 0.5;

/// The network and the tokenizer of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model<'a> {
    pub network: &'a Network,
    pub tokenizer: &'a Tokenizer,
}

/// A window under way.
struct Job<'a> {
    place: usize,
    options: &'a TranscriptionOptions,
    spectrogram: Tensor,
    frames: usize,
    /// Frames that are done.
    seek: usize,
    /// Passes that may follow.
    left: usize,
    language: Option<(String, f32)>,
    /// What the next pass reads as written before.
    before: Vec<u32>,
    segments: Vec<Segment>,
}

pub(super) fn transcribe(
    model: Model<'_>,
    requests: &[TranscriptionRequest],
    cancelled: &dyn Fn(usize) -> bool,
) -> Result<Vec<Transcription>> {
    let mut jobs = requests
        .iter()
        .enumerate()
        .map(|(place, request)| Job::build(model, place, request))
        .collect::<Result<Vec<_>>>()?;
    loop {
        let open: Vec<&mut Job<'_>> = jobs
            .iter_mut()
            .filter(|job| job.is_open() && !cancelled(job.place))
            .collect();
        // Texts of a batch begin at one length; as a rule they all do.
        let Some(length) = open.first().map(|job| job.before.len()) else {
            break;
        };
        let mut batch: Vec<&mut Job<'_>> = open
            .into_iter()
            .filter(|job| job.before.len() == length)
            .collect();
        pass(model, &mut batch, cancelled)?;
    }
    let finish = |job: Job<'_>| {
        let (language, language_probability) =
            job.language.unwrap_or_else(|| ("en".to_owned(), 0.));
        Transcription {
            language,
            language_probability,
            segments: job.segments,
        }
    };
    Ok(jobs.into_iter().map(finish).collect())
}

/// One pass over windows, from where each is.
fn pass(
    model: Model<'_>,
    jobs: &mut [&mut Job<'_>],
    cancelled: &dyn Fn(usize) -> bool,
) -> Result<()> {
    let network = model.network;
    let from: Vec<(&Tensor, usize)> = jobs
        .iter()
        .map(|job| (&job.spectrogram, job.seek))
        .collect();
    let audio = network.encode(&from)?;
    if jobs.iter().any(|job| job.language.is_none()) {
        for (job, found) in jobs.iter_mut().zip(network.languages(&audio)?) {
            job.language.get_or_insert(found);
        }
    }
    let mut passes: Vec<Option<DecodedPass>> = jobs.iter().map(|_| None).collect();
    let most = jobs
        .iter()
        .map(|job| job.options.temperatures.len())
        .max()
        .unwrap_or(0);
    for attempt in 0..most {
        let open = |at: &usize| {
            attempt < jobs[*at].options.temperatures.len()
                && passes[*at].as_ref().is_none_or(|pass| pass.doubtful)
        };
        let rows: Vec<usize> = (0..jobs.len()).filter(open).collect();
        if rows.is_empty() {
            break;
        }
        let some = if rows.len() < jobs.len() {
            Some(audio.select(&rows)?)
        } else {
            None
        };
        let audio = some.as_ref().unwrap_or(&audio);
        let decoded = decode_again(model, jobs, (&rows, audio), attempt, cancelled)?;
        for (row, pass) in rows.into_iter().zip(decoded) {
            passes[row] = Some(pass);
        }
    }
    for (job, pass) in jobs.iter_mut().zip(passes) {
        job.take(
            model,
            pass.ok_or_else(|| Error::bug("a window was left out of its pass"))?,
        )?;
    }
    Ok(())
}

/// The texts of some `rows` of `jobs`, about their `audio`, at the temperatures of an attempt.
fn decode_again(
    model: Model<'_>,
    jobs: &[&mut Job<'_>],
    (rows, audio): (&[usize], &CrossContext),
    attempt: usize,
    cancelled: &dyn Fn(usize) -> bool,
) -> Result<Vec<DecodedPass>> {
    let requests: Vec<DecodeRequest> = rows
        .iter()
        .map(|&row| jobs[row].request(&model.network.tokens, attempt))
        .collect();
    let aligned = jobs.iter().any(|job| job.options.words);
    let cancelled = |at: usize| cancelled(jobs[rows[at]].place);
    let outputs = model
        .network
        .decode(audio, &requests, aligned, &cancelled)?;
    rows.iter()
        .zip(outputs)
        .map(|(&row, output)| {
            let options = jobs[row].options;
            DecodedPass::build(
                output,
                options,
                options.temperatures[attempt],
                model.network,
            )
        })
        .collect()
}

impl<'a> Job<'a> {
    fn build(model: Model<'_>, place: usize, request: &'a TranscriptionRequest) -> Result<Self> {
        let options = &request.options;
        // A spectrogram needs some samples; nothing is heard in fewer.
        let mut samples = std::borrow::Cow::Borrowed(&*request.samples);
        if samples.len() < 4 * HOP {
            samples.to_mut().resize(4 * HOP, 0.);
        }
        let spectrogram = model.network.spectrogram(&samples)?;
        let frames = spectrogram.size2()?.1 as usize;
        let language = options.language.clone().map(|code| (code, 1.));
        let before = match options.prompt.trim() {
            "" => Vec::new(),
            prompt => model.tokenizer.encode(&format!(" {prompt}"))?,
        };
        // A pass that finds nothing but a short segment must not go on for ever.
        let left = 2 + frames * HOP / SAMPLE_RATE;
        let mut job = Self {
            place,
            options,
            spectrogram,
            frames,
            seek: 0,
            left,
            language,
            before: Vec::new(),
            segments: Vec::new(),
        };
        job.remember(model, &before);
        Ok(job)
    }

    fn is_open(&self) -> bool {
        let rest = self.frames.saturating_sub(self.seek);
        rest > 0
            && self.left > 0
            && (self.seek == 0 || rest as f64 * FRAME_SECONDS >= f64::from(self.options.least))
    }

    /// Adds to what the next pass reads as written before; the oldest leaves.
    fn remember(&mut self, model: Model<'_>, tokens: &[u32]) {
        let (Some(previous), false) = (model.network.tokens.previous, tokens.is_empty()) else {
            return;
        };
        let most = (model.network.config.max_target_positions as usize / 2).saturating_sub(1);
        let kept: Vec<u32> = self.before.iter().skip(1).chain(tokens).copied().collect();
        self.before = std::iter::once(previous)
            .chain(kept[kept.len().saturating_sub(most)..].iter().copied())
            .collect();
    }

    fn request(&self, tokens: &SpecialTokens, attempt: usize) -> DecodeRequest {
        let mut prompt = self.before.clone();
        prompt.push(tokens.start);
        let language = self
            .language
            .as_ref()
            .and_then(|(code, _)| tokens.languages.get(code));
        let task = tokens.tasks.get(self.options.task.as_str());
        // A model of English only has neither.
        prompt.extend(
            language
                .zip(task)
                .into_iter()
                .flat_map(|(language, task)| [*language, *task]),
        );
        DecodeRequest {
            prompt: prompt.into_iter().map(i64::from).collect(),
            before: self.before.len(),
            frames: self.frames - self.seek,
            temperature: self.options.temperatures[attempt],
            seed: self
                .options
                .seed
                .wrapping_add((self.seek as u64) << 8)
                .wrapping_add(attempt as u64),
        }
    }

    /// Takes in what a pass wrote.
    fn take(&mut self, model: Model<'_>, pass: DecodedPass) -> Result<()> {
        self.left -= 1;
        let rest = self.frames - self.seek;
        if pass.silent {
            self.seek = self.frames;
            return Ok(());
        }
        let (stretches, next) = split(
            &pass.written.tokens,
            rest.min(model.network.config.frames()),
            &model.network.tokens,
        );
        for stretch in &stretches {
            if let Some(segment) = self.segment(model, &pass, stretch)? {
                self.segments.push(segment);
            }
        }
        if self.options.remember {
            if pass.temperature < MAX_GUIDE_TEMPERATURE {
                // A timestamp that both ends a phrase and begins the next is read once.
                let tokens: Vec<u32> = stretches
                    .iter()
                    .flat_map(|stretch| once(&pass.written.tokens[stretch.tokens.clone()], model))
                    .collect();
                self.remember(model, &tokens);
            } else {
                self.before.clear();
            }
        }
        self.seek += next.max(1);
        Ok(())
    }

    fn segment(
        &self,
        model: Model<'_>,
        pass: &DecodedPass,
        stretch: &TimedSpan,
    ) -> Result<Option<Segment>> {
        let tokens = &pass.written.tokens;
        let offset = self.seek as f64 * FRAME_SECONDS;
        let places: Vec<usize> = stretch
            .tokens
            .clone()
            .filter(|&at| tokens[at] < model.network.tokens.end)
            .collect();
        let text: Vec<u32> = places.iter().map(|&at| tokens[at]).collect();
        let decoded = model.tokenizer.decode(&text)?;
        if decoded.trim().is_empty() {
            return Ok(None);
        }
        let found = if self.options.words {
            self.words(model, &pass.written, (&text, &places))?
        } else {
            Vec::new()
        };
        Ok(Some(Segment {
            start: offset + stretch.start,
            end: offset + stretch.end,
            text: decoded.trim().to_owned(),
            tokens: tokens[stretch.tokens.clone()].to_vec(),
            words: found,
            log_probability: pass.log_probability,
            no_speech: pass.written.no_speech,
            compression_ratio: pass.compression_ratio,
            temperature: pass.temperature,
        }))
    }

    /// The words of `text`, whose tokens stand at `places` of what was written, with their times.
    fn words(
        &self,
        model: Model<'_>,
        written: &DecodeOutput,
        (text, places): (&[u32], &[usize]),
    ) -> Result<Vec<Word>> {
        let language = if self.options.task == Task::Translate {
            "en"
        } else {
            self.language.as_ref().map_or("en", |(code, _)| code)
        };
        let offset = self.seek as f64 * FRAME_SECONDS;
        let mut found = Vec::new();
        for word in words(model.tokenizer, text, language)? {
            let own = &places[word.tokens];
            let (Some(&first), Some(&last)) = (own.first(), own.last()) else {
                continue;
            };
            let sum: f32 = own
                .iter()
                .map(|&at| written.log_probabilities[at].exp())
                .sum();
            let begin = first
                .checked_sub(1)
                .map_or(0., |before| written.times[before]);
            found.push(Word {
                text: word.text.trim().to_owned(),
                start: offset + begin,
                end: offset + written.times[last],
                probability: sum / own.len() as f32,
            });
        }
        Ok(found)
    }
}

/// Tokens without the second of two timestamps at their end.
fn once<'t>(tokens: &'t [u32], model: Model<'_>) -> impl Iterator<Item = u32> + 't {
    let twice = tokens.len() > 2 && model.network.tokens.is_timestamp(tokens[tokens.len() - 2]);
    tokens[..tokens.len() - usize::from(twice)].iter().copied()
}
