//! What writes texts as a worker's model: language models, and captioners of pictures and of
//! videos.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::{WRITTEN, grey};
use crate::error::{Error, Result};
use crate::inference::Model;
use crate::models::blip::Blip;
use crate::models::caption_decoder::{CaptionDecoder, CaptionRequest};
use crate::models::text::{CausalLm, Generation, GenerationConfig, TextRequest};
use crate::packet::Frame;
use crate::tensor::{Device, frames_to_tensor};

/// The texts for one item: one, or its variants.
type Texts = Vec<Generation>;

/// A language model: a prompt in, texts out.
pub(in crate::inference) struct LanguageModel(pub CausalLm);

impl Model for LanguageModel {
    type Item = TextRequest;
    type Answer = Texts;

    fn run(
        &mut self,
        items: &[&TextRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Texts>>> {
        // A prompt that does not fit must not fail its neighbours.
        let checks = items.iter().map(|request| self.0.check(request)).collect();
        run_valid(checks, |good| {
            let requests: Vec<TextRequest> = good.iter().map(|&at| items[at].clone()).collect();
            self.0.generate(&requests, &|at| cancelled(good[at]))
        })
    }

    fn warm_up(&mut self) -> Result<()> {
        let request = TextRequest {
            prompt: "Hello".to_owned(),
            writing: brief(),
            ..TextRequest::default()
        };
        self.0.generate(&[request], &|_| false).map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        let prompt = "One caption for a shot of a harbour with boats, people who wait on a pier, \
                      a crane and a grey sky."
            .to_owned();
        Some(TextRequest {
            prompt,
            writing: GenerationConfig {
                max_tokens: WRITTEN,
                ..GenerationConfig::default()
            },
            ..TextRequest::default()
        })
    }

    fn shape(item: &Self::Item) -> String {
        format!(
            "{} bytes of prompt, {} tokens written",
            item.prompt.len(),
            item.writing.max_tokens
        )
    }
}

/// BLIP: a picture and what its caption begins with in, captions out.
pub(in crate::inference) struct PictureCaptions(pub Blip);

impl Model for PictureCaptions {
    type Item = (Arc<Frame>, CaptionRequest);
    type Answer = Texts;

    fn run(
        &mut self,
        items: &[&Self::Item],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Texts>>> {
        let checks = items
            .iter()
            .map(|(_, request)| self.0.check(request))
            .collect();
        run_valid(checks, |good| {
            let sizes: Vec<(u32, u32)> = good
                .iter()
                .map(|&at| (items[at].0.width, items[at].0.height))
                .collect();
            in_groups(&sizes, |group| {
                let frames: Vec<&Frame> =
                    group.iter().map(|&at| items[good[at]].0.as_ref()).collect();
                self.0.see(&frames_to_tensor(&frames, self.0.device())?)
            })
            .and_then(|seen| {
                let requests: Vec<&CaptionRequest> = good.iter().map(|&at| &items[at].1).collect();
                self.0.write(&seen, &requests, &|at| cancelled(good[at]))
            })
        })
    }

    fn warm_up(&mut self) -> Result<()> {
        let [rows, columns] = self.0.size();
        let seen = self.0.see(&Tensor::f_zeros(
            [1, rows, columns, 3],
            (tch::Kind::Uint8, self.0.device()),
        )?)?;
        self.0
            .write(
                &seen,
                &[&CaptionRequest {
                    writing: brief(),
                    ..CaptionRequest::default()
                }],
                &|_| false,
            )
            .map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        let [rows, columns] = self.0.size();
        let writing = GenerationConfig {
            max_tokens: WRITTEN,
            ..GenerationConfig::default()
        };
        let frame = grey(1, columns as u32, rows as u32).pop()?;
        Some((
            frame,
            CaptionRequest {
                writing,
                ..CaptionRequest::default()
            },
        ))
    }

    fn shape((frame, request): &Self::Item) -> String {
        format!(
            "a frame of {}x{}, {} tokens written",
            frame.width, frame.height, request.writing.max_tokens
        )
    }
}

/// The seed system's caption decoder: the vectors of a video and what its caption begins with in,
/// captions out.
pub(in crate::inference) struct VideoCaptions(pub CaptionDecoder);

impl Model for VideoCaptions {
    type Item = (Vec<Vec<f32>>, CaptionRequest);
    type Answer = Texts;

    fn run(
        &mut self,
        items: &[&Self::Item],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Texts>>> {
        let check = |(vectors, request): &&Self::Item| {
            let width = self.0.width() as usize;
            match vectors.iter().find(|vector| vector.len() != width) {
                Some(wrong) => Err(Error::model(format!(
                    "captions are written over vectors of {width} numbers, this has {}",
                    wrong.len()
                ))
                .hint("encode with the model that the caption decoder was trained with")),
                None if vectors.is_empty() => Err(Error::model("a video without vectors")),
                None => self.0.check(request),
            }
        };
        let checks = items.iter().map(check).collect();
        run_valid(checks, |good| {
            // Only videos of as many vectors can be written about together.
            let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            good.iter()
                .for_each(|&at| groups.entry(items[at].0.len()).or_default().push(at));
            let mut texts: BTreeMap<usize, Texts> = BTreeMap::new();
            for (length, group) in groups {
                let numbers: Vec<f32> = group
                    .iter()
                    .flat_map(|&at| items[at].0.iter().flatten().copied())
                    .collect();
                let videos = Tensor::f_from_slice(&numbers)?.f_view([
                    group.len() as i64,
                    length as i64,
                    self.0.width(),
                ])?;
                let requests: Vec<&CaptionRequest> = group.iter().map(|&at| &items[at].1).collect();
                texts.extend(
                    group.iter().copied().zip(
                        self.0
                            .write(&videos, &requests, &|at| cancelled(group[at]))?,
                    ),
                );
            }
            Ok(texts.into_values().collect())
        })
    }

    fn warm_up(&mut self) -> Result<()> {
        let videos = Tensor::f_zeros([1, 1, self.0.width()], (tch::Kind::Float, Device::Cpu))?;
        self.0
            .write(
                &videos,
                &[&CaptionRequest {
                    writing: brief(),
                    ..CaptionRequest::default()
                }],
                &|_| false,
            )
            .map(drop)
    }
}

fn brief() -> GenerationConfig {
    GenerationConfig {
        max_tokens: 2,
        ..GenerationConfig::default()
    }
}

/// An answer for every item: of those whose check failed its error, of the others, in their order,
/// what `run` gives for their numbers.
fn run_valid(
    checks: Vec<Result<()>>,
    run: impl FnOnce(&[usize]) -> Result<Vec<Texts>>,
) -> Result<Vec<Result<Texts>>> {
    let good: Vec<usize> = (0..checks.len()).filter(|&at| checks[at].is_ok()).collect();
    let mut written = if good.is_empty() {
        Vec::new()
    } else {
        run(&good)?
    }
    .into_iter();
    let answer = |check: Result<()>| {
        check.and_then(|()| {
            written
                .next()
                .ok_or_else(|| Error::bug("a text is missing from its batch"))
        })
    };
    Ok(checks.into_iter().map(answer).collect())
}

/// Runs what is of one kind together; the rows that come out are in the order of `kinds` again.
fn in_groups<K: Ord>(
    kinds: &[K],
    mut run: impl FnMut(&[usize]) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut groups: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
    kinds
        .iter()
        .enumerate()
        .for_each(|(at, kind)| groups.entry(kind).or_default().push(at));
    let order: Vec<usize> = groups.values().flatten().copied().collect();
    let parts = groups
        .values()
        .map(|group| run(group))
        .collect::<Result<Vec<_>>>()?;
    if let [one] = parts.as_slice() {
        return Ok(one.shallow_clone());
    }
    let mut places = vec![0i64; order.len()];
    order
        .iter()
        .enumerate()
        .for_each(|(row, &at)| places[at] = row as i64);
    let all = Tensor::f_cat(&parts, 0)?;
    Ok(all.f_index_select(
        0,
        &Tensor::f_from_slice(&places)?.f_to_device(all.device())?,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_groups_come_back_in_their_order() {
        let numbers = [3i64, 1, 3, 2, 1];
        let mut sizes = Vec::new();
        let rows = in_groups(&numbers, |group| {
            sizes.push(group.len());
            Ok(Tensor::from_slice(
                &group.iter().map(|&at| at as i64).collect::<Vec<_>>(),
            ))
        });
        assert_eq!(
            Vec::<i64>::try_from(rows.unwrap()).unwrap(),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(sizes, [2, 1, 2]);
    }

    #[test]
    fn a_failed_check_stays_with_its_item() {
        let checks = vec![Ok(()), Err(Error::model("no")), Ok(())];
        let answers = run_valid(checks, |good| {
            assert_eq!(good, [0, 2]);
            Ok(vec![Vec::new(), Vec::new()])
        });
        assert_eq!(
            answers
                .unwrap()
                .iter()
                .map(Result::is_ok)
                .collect::<Vec<_>>(),
            [true, false, true]
        );
    }
}
