//! The keys of `with:` for `diffuse`.

use crate::config::shape::{Default, Field, Type};
use crate::models::networks;

pub(super) const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(networks::PICTURE_GENERATORS),
        default: Default::Required,
        doc: "The pipeline: a folder with model_index.json.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Is("\"{caption}\""),
        doc: "What a picture shows. `{caption}` and `{tags}` (of what is collected), `{start}`, \
              `{duration}` (seconds), `{stream}` and `{labels.NAME}` are filled in. A thumbnail \
              from noise whose prompt comes out empty is not painted.",
    },
    Field {
        name: "negative_prompt",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What a picture does not show, with a `guidance` above 1; as the model was trained \
              when left out.",
    },
    Field {
        name: "mode",
        ty: Type::Choice(&["thumbnail", "frames"]),
        default: Default::Is("thumbnail"),
        doc: "What is painted for a segment or a caption: one picture, or each frame that is \
              collected for it.",
    },
    Field {
        name: "start",
        ty: Type::Choice(&["noise", "frame"]),
        default: Default::Is("noise"),
        doc: "What a thumbnail is painted from: `noise` and the prompt alone, or the collected \
              frame or picture nearest to the middle.",
    },
    Field {
        name: "size",
        ty: Type::Size,
        default: Default::Is("native"),
        doc: "Width and height, multiples of 8. `native` is the frame's size, cut down to such \
              multiples, or from noise that of the model's training. A view of this size saves \
              scaling.",
    },
    Field {
        name: "steps",
        ty: Type::Int(1, 1000),
        default: Default::Is("20"),
        doc: "Steps from noise to a picture; turbo models want 1 to 4.",
    },
    Field {
        name: "guidance",
        ty: Type::Float(0.0, 100.0),
        default: Default::Is("7.5"),
        doc: "How much more the prompt counts than the negative one. At 1 or less a step costs \
              half as much; turbo models want 0.",
    },
    Field {
        name: "strength",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.6"),
        doc: "How much of a frame becomes noise, above 0; this part of `steps` is done, and must \
              be one at least. Latent consistency models do all steps.",
    },
    Field {
        name: "seed",
        ty: Type::Int(0, u32::MAX as i64),
        default: Default::Is("0"),
        doc: "Seed of the noise, the same for every picture: equal seeds and inputs give equal \
              pictures on the same device.",
    },
    Field {
        name: "previous",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.3"),
        doc: "The part that the frame painted before has in the next frame's latents, against \
              flicker; 0 for none, which lets the frames of a segment be painted at once. Each \
              segment begins afresh.",
    },
    Field {
        name: "skip_similar",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.98"),
        doc: "Frames whose structural similarity to the last painted one reaches this are not \
              painted: they are absorbed, and the picture before stands for them.",
    },
    Field {
        name: "tags",
        ty: Type::Int(0, 100),
        default: Default::Is("5"),
        doc: "Tags in `{tags}`, best first.",
    },
    Field {
        name: "format",
        ty: Type::Choice(&["jpeg", "png", "webp"]),
        default: Default::Is("jpeg"),
        doc: "How pictures are encoded; PNG and WebP without loss.",
    },
    Field {
        name: "quality",
        ty: Type::Int(1, 100),
        default: Default::Is("85"),
        doc: "JPEG quality.",
    },
    Field {
        name: "role",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What the pictures are for, as their records say: `thumbnail`, or `frame` for \
              frames, when left out.",
    },
    Field {
        name: "cache",
        ty: Type::Bool,
        default: Default::Is("true"),
        doc: "Whether pictures are looked up and kept by what they are painted from.",
    },
];

/// What a prompt may ask for.
pub(super) const NAMES: [&str; 5] = ["caption", "tags", "start", "duration", "stream"];
