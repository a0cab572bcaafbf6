//! `torchscript`: whatever a TorchScript module makes of a frame, as a vector, with labels where it
//! has them. What the module takes and gives is declared in its folder's config.json or here.

use std::sync::Arc;

use async_trait::async_trait;

use super::vectors::{CACHE, DTYPE, Form, Made, NORMALIZE, TOP, kept, key, texts};
use crate::config::shape::{Default, Field, Type};
use crate::config::{Params, Value};
use crate::inference::{Encoded, Requester, ScriptModel};
use crate::models::networks;
use crate::models::torchscript::{Declared, Layout, Output};
use crate::packet::{Frame, Payload, PayloadKind, Scores};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Input, Joins, Lookahead, PacketDraft, StageKind,
    Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "torchscript",
    doc: "The output of a TorchScript module for each frame, flattened to a vector; where it has \
          labels, the output is also scored by softmax. `size`, `mean`, `std`, `layout`, `output` \
          and `labels` left out here are those of the config.json beside the module.",
    accepts: &[PayloadKind::Frame],
    emits: &[PayloadKind::Embedding],
    params: &[
        Field {
            name: "model",
            ty: Type::Model(networks::MODULES),
            default: Default::Required,
            doc: "The module: a folder with model.pt and a config.json whose `architectures` is \
                  `[TorchScript]`.",
        },
        Field {
            name: "size",
            ty: Type::Size,
            default: Default::Absent,
            doc: "Width and height of the pictures that the module takes; frames of another size \
                  are scaled. `native` takes frames as they come.",
        },
        Field {
            name: "mean",
            ty: Type::List(&Type::Float(-1e6, 1e6)),
            default: Default::Absent,
            doc: "What is taken off red, green and blue, which go from 0 to 1: three numbers.",
        },
        Field {
            name: "std",
            ty: Type::List(&Type::Float(1e-6, 1e6)),
            default: Default::Absent,
            doc: "What red, green and blue are divided by then: three numbers.",
        },
        Field {
            name: "layout",
            ty: Type::Choice(&["nchw", "nhwc"]),
            default: Default::Absent,
            doc: "How pixels lie: colours in planes (`nchw`) or side by side (`nhwc`).",
        },
        Field {
            name: "output",
            ty: Type::Text,
            default: Default::Absent,
            doc: "Which output is the vector: a name for a module that gives a dictionary, a \
                  number from 0 for one that gives a tuple or a list.",
        },
        Field {
            name: "labels",
            ty: Type::List(&Type::Text),
            default: Default::Absent,
            doc: "Names of the vector's numbers, as many as it has.",
        },
        TOP,
        DTYPE,
        NORMALIZE,
        CACHE,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    let params = context.params;
    let model = context.deps.models.script(params.text("model"))?;
    let declared = Arc::new(declared(params, model.declared().clone())?);
    let labels = params
        .opt_list("labels")
        .map(texts)
        .or_else(|| model.labels().cloned());
    let form = Form::of(params);
    Ok(Arc::new(Module {
        model,
        declared,
        labels,
        form,
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    }))
}

/// What the folder declares, with what the stage says instead.
fn declared(params: &Params, mut declared: Declared) -> Result<Declared> {
    if let Some(size) = params.opt_size("size") {
        declared.size = size.map(|(width, height)| [i64::from(height), i64::from(width)]);
    }
    if let Some(mean) = channels(params, "mean")? {
        declared.mean = mean;
    }
    if let Some(std) = channels(params, "std")? {
        declared.std = std;
    }
    if let Some(layout) = params.opt_text("layout") {
        declared.layout = if &**layout == "nhwc" {
            Layout::Nhwc
        } else {
            Layout::Nchw
        };
    }
    if let Some(output) = params.opt_text("output") {
        declared.output = Output::parse(output);
    }
    Ok(declared)
}

fn channels(params: &Params, name: &str) -> Result<Option<[f64; 3]>> {
    let Some(list) = params.opt_list(name) else {
        return Ok(None);
    };
    let numbers: Vec<f64> = list
        .iter()
        .filter_map(|number| {
            if let Value::Float(number) = number {
                Some(*number)
            } else {
                None
            }
        })
        .collect();
    let three = <[f64; 3]>::try_from(numbers);
    three.map(Some).map_err(|found| {
        Error::config(format!("`{name}` has {} numbers", found.len()))
            .hint("write one each for red, green and blue")
    })
}

struct Module {
    model: ScriptModel,
    declared: Arc<Declared>,
    labels: Option<Arc<[Arc<str>]>>,
    form: Form,
    cache: bool,
    deps: Arc<Deps>,
}

#[async_trait]
impl Transform for Module {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let (id, span) = (input.id(), input.head.span);
        let Payload::Frame(frame) = input.payload else {
            return Err(Error::bug("torchscript takes frames"));
        };
        let stream = &input.head.channel.stream;
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        let Encoded { vector, .. } = self.answer(frame, requester).await?;
        let scores = self
            .labels
            .as_ref()
            .map(|names| scores(names, &vector))
            .transpose()?;
        let embedding = self.form.embedding(
            Made {
                vector,
                unit: false,
                frames: 1,
                scores,
            },
            self.model.tag(),
        );
        out.emit(
            PacketDraft::new(Payload::Embedding(Arc::new(embedding)), span)
                .by(self.model.tag())
                .from_records(vec![id]),
        );
        Ok(())
    }
}

impl Module {
    async fn answer(&self, frame: Arc<Frame>, requester: Requester) -> Result<Encoded> {
        let ask = |frame| self.model.ask(frame, Arc::clone(&self.declared), requester);
        if !self.cache {
            return ask(frame).await;
        }
        let key = key(
            "torchscript",
            self.model.tag(),
            self.model.device(),
            std::slice::from_ref(&frame),
        );
        // What is declared prints whole, each value under its name.
        let key = key.part(format!("{:?}", self.declared)).finish();
        kept(&self.deps, &key, ask(frame)).await
    }
}

/// The softmax of an output, under its labels.
fn scores(names: &Arc<[Arc<str>]>, vector: &[f32]) -> Result<Scores> {
    if names.len() != vector.len() {
        let message = format!(
            "the module gives {} numbers, and there are {} labels",
            vector.len(),
            names.len()
        );
        return Err(
            Error::config(message).hint("name as many labels as the output has numbers, or none")
        );
    }
    let top = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = vector.iter().map(|logit| (logit - top).exp()).collect();
    let sum: f32 = powers.iter().sum();
    Ok(Scores {
        names: Arc::clone(names),
        values: powers.into_iter().map(|power| power / sum).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Provenance;

    #[test]
    fn what_the_stage_says_stands_for_what_the_folder_declares() {
        let folder = Declared {
            size: Some([16, 12]),
            mean: [0.5; 3],
            output: Output::Name("logits".to_owned()),
            ..Declared::default()
        };
        assert_eq!(
            declared(&Params::default(), folder.clone()).unwrap(),
            folder
        );
        let mut params = Params::default();
        let numbers =
            |numbers: &[f64]| Value::List(numbers.iter().copied().map(Value::Float).collect());
        params.insert("size", Value::Size(Some((320, 240))), Provenance::Default);
        params.insert("std", numbers(&[0.1, 0.2, 0.3]), Provenance::Default);
        params.insert("layout", Value::Text("nhwc".into()), Provenance::Default);
        params.insert("output", Value::Text("1".into()), Provenance::Default);
        let expected = Declared {
            size: Some([240, 320]),
            mean: [0.5; 3],
            std: [0.1, 0.2, 0.3],
            layout: Layout::Nhwc,
            output: Output::Index(1),
        };
        assert_eq!(declared(&params, folder.clone()).unwrap(), expected);
        params.insert("size", Value::Size(None), Provenance::Default);
        assert_eq!(declared(&params, folder.clone()).unwrap().size, None);
        params.insert("mean", numbers(&[0.1]), Provenance::Default);
        assert_eq!(
            declared(&params, folder).unwrap_err().kind(),
            crate::error::Kind::Config
        );
    }

    #[test]
    fn labels_must_be_as_many_as_numbers() {
        let names: Arc<[Arc<str>]> = ["day", "night"].map(Arc::from).into();
        let scores = scores(&names, &[0., 2f32.ln()]).unwrap();
        assert!(
            (scores.values[0] - 1. / 3.).abs() < 1e-6 && (scores.values[1] - 2. / 3.).abs() < 1e-6,
            "{:?}",
            scores.values
        );
        assert_eq!(
            super::scores(&names, &[0.; 3]).unwrap_err().kind(),
            crate::error::Kind::Config
        );
    }
}
