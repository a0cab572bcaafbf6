//! The prompt of a caption: a template, and what is filled in of a segment and of what was
//! collected for it.

use super::languages;
use crate::Result;
use crate::packet::{Label, Payload, Scores};
use crate::stage::Input;
use crate::stages::transforms::prompt::Prompt as Template;

/// What the names in a prompt are filled in from.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptContext<'a> {
    /// What the caption is about, and what was collected for it.
    pub input: &'a Input<'a>,
    /// The best tags.
    pub tags: &'a [Label],
    /// BCP 47 tag of the language asked for.
    pub language: &'a str,
    /// What the caption is for.
    pub platform: &'a str,
}

/// What a name in a template becomes.
type Variable = (&'static str, fn(&PromptContext<'_>) -> String);

/// Every name but `labels.NAME`.
const VARIABLES: &[Variable] = &[
    ("tags", |context| {
        context
            .tags
            .iter()
            .map(|tag| &*tag.name)
            .collect::<Vec<_>>()
            .join(", ")
    }),
    ("said", |context| context.said()),
    ("caption", |context| context.captions()),
    ("start", |context| {
        format!("{:.1}", context.input.head.span.start as f64 / 1e9)
    }),
    ("duration", |context| {
        format!("{:.1}", context.input.head.span.len() as f64 / 1e9)
    }),
    ("language", |context| languages::name(context.language)),
    ("platform", |context| context.platform.to_owned()),
    ("stream", |context| {
        context.input.head.channel.stream.id.to_string()
    }),
];

impl PromptContext<'_> {
    /// What was said, phrase after phrase.
    fn said(&self) -> String {
        let phrases = self
            .input
            .collected
            .iter()
            .filter_map(|(_, payload)| match payload {
                Payload::Transcript(transcript) => Some(transcript.text.trim()),
                _ => None,
            });
        phrases
            .filter(|phrase| !phrase.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The captions that others wrote, one after the other; of several for the same the first, of
    /// equal neighbours one.
    fn captions(&self) -> String {
        let captions = self
            .input
            .collected
            .iter()
            .filter_map(|(_, payload)| match payload {
                Payload::Caption(caption) if caption.variant == 0 => Some(caption.text.trim()),
                _ => None,
            });
        let mut captions: Vec<&str> = captions.filter(|caption| !caption.is_empty()).collect();
        captions.dedup();
        captions.join(", ")
    }
}

/// The mean probability of each class over the vectors that were collected, best first.
pub(super) fn mean_tags(input: &Input<'_>, count: usize, least: f32) -> Vec<Label> {
    let scores = input
        .collected
        .iter()
        .filter_map(|(_, payload)| match payload {
            Payload::Embedding(embedding) => embedding.scores.as_deref(),
            _ => None,
        });
    let Some(mean) = Scores::mean(scores) else {
        return Vec::new();
    };
    let mut tags = mean.top(count);
    tags.retain(|tag| tag.score >= least);
    tags
}

/// A prompt template whose names are filled in from a [`PromptContext`].
#[derive(Debug)]
pub(super) struct Prompt(Template);

impl Prompt {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self> {
        let names: Vec<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
        Template::parse(text, &names).map(Self)
    }

    /// The text about `context`.
    pub fn fill(&self, context: &PromptContext<'_>) -> String {
        let value = |name: &str| {
            VARIABLES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value(context))
                .unwrap_or_default()
        };
        self.0
            .fill(&context.input.head.channel.stream.labels, value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::packet::{
        Caption, Cut, Embedding, Finish, Packet, Receipt, Segment, Span, SpeechTask, Transcript,
        VectorType,
    };
    use crate::stage::testing::head;
    use crate::stage::{DropPolicy, PendingInput};

    fn packet(start: u64, end: u64, payload: Payload) -> Packet {
        Packet {
            head: Arc::new(head(Span::new(start, end))),
            payload,
            receipt: Receipt::none(),
        }
    }

    fn spoken(text: &str) -> Payload {
        Payload::Transcript(Arc::new(Transcript {
            text: text.to_owned(),
            language: "en".to_owned(),
            language_probability: 1.0,
            task: SpeechTask::Transcribe,
            words: Vec::new(),
            average_log_probability: -0.1,
            no_speech_probability: 0.0,
        }))
    }

    fn captioned(text: &str, variant: u32) -> Payload {
        let (language, platform, tags) = ("en".to_owned(), String::new(), Vec::new());
        let caption = Caption {
            text: text.to_owned(),
            language,
            platform,
            tags,
            tokens: 1,
            finish: Finish::Stop,
            partial: false,
            variant,
        };
        Payload::Caption(Arc::new(caption))
    }

    fn encoded(values: &[f32]) -> Payload {
        let names: Arc<[Arc<str>]> = ["cat", "dog", "bus"].map(Arc::from).into();
        let scores = Scores {
            names: names.iter().take(values.len()).cloned().collect(),
            values: values.to_vec(),
        };
        Payload::Embedding(Arc::new(Embedding {
            space: "tags".into(),
            dtype: VectorType::F32,
            dim: 0,
            normalized: false,
            vector: bytes::Bytes::new(),
            frames: 1,
            labels: Vec::new(),
            scores: Some(Arc::new(scores)),
        }))
    }

    /// What a prompt says of a segment of 2.5 seconds with these things collected.
    fn filled(prompt: &str, collected: Vec<Payload>) -> String {
        let segment = Payload::Segment(Arc::new(Segment {
            index: 0,
            cut: Cut::Hard,
            confidence: 1.0,
            frames: 60,
        }));
        let collected = collected
            .into_iter()
            .map(|payload| packet(1_500_000_000, 2_000_000_000, payload))
            .collect();
        let PendingInput { in_flight, data } = PendingInput::new(
            packet(1_500_000_000, 4_000_000_000, segment),
            collected,
            false,
        );
        let drop_policy = DropPolicy::default();
        let input = data.into_input(&in_flight, &drop_policy);
        let tags = mean_tags(&input, 2, 0.1);
        let context = PromptContext {
            input: &input,
            tags: &tags,
            language: "pt-BR",
            platform: "tiktok",
        };
        Prompt::parse(prompt).expect("it parses").fill(&context)
    }

    #[test]
    fn a_prompt_tells_of_the_segment_and_of_what_was_collected() {
        let heard = vec![
            spoken(" Hello there. "),
            captioned("a man", 0),
            captioned("a person", 1),
            captioned("a man", 0),
            spoken(""),
            spoken("Bye."),
        ];
        assert_eq!(
            filled("{said} / {caption}", heard),
            "Hello there. Bye. / a man"
        );
        assert_eq!(
            filled(
                "{caption}|{said}",
                vec![captioned("a dog", 0), captioned("a bus", 0)]
            ),
            "a dog, a bus|"
        );
        assert_eq!(
            filled("{start} {duration} {stream}", Vec::new()),
            "1.5 2.5 test"
        );
        assert_eq!(
            filled(
                "In {language} for {platform}, {{as it is}}{labels.channel}",
                Vec::new()
            ),
            "In Portuguese (BR) for tiktok, {as it is}"
        );
    }

    #[test]
    fn tags_are_the_mean_of_all_vectors_of_one_model() {
        let vectors = vec![
            encoded(&[0.5, 0.5, 0.0]),
            encoded(&[0.9, 0.05, 0.05]),
            encoded(&[0.0, 1.0]),
        ];
        assert_eq!(filled("{tags}", vectors), "cat, dog");
        assert_eq!(
            filled("{tags}", vec![encoded(&[0.05, 0.9, 0.05])]),
            "dog",
            "what is improbable is left out"
        );
    }

    #[test]
    fn broken_prompts_are_refused() {
        for broken in ["{tgas}", "{tags", "tags}", "{}", "{label.channel}"] {
            let error = Prompt::parse(broken).expect_err(broken);
            assert_eq!(error.kind(), crate::error::Kind::Config);
            assert!(
                error.to_string().contains("{said}"),
                "it says what there is: {error}"
            );
        }
    }
}
