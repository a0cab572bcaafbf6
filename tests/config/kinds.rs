//! Stage kinds that exist only here, so that what the check says does not change with the real
//! ones.

use std::sync::Arc;
use std::time::Duration;

use opusflow::config::shape::Default;
use opusflow::config::{Field, Params, Type};
use opusflow::packet::PayloadKind;
use opusflow::stage::{
    Build, Context, Endpoint, Joins, Lookahead, OpenTransform, Sink, Source, StageKind, Transform,
};
use opusflow::{Error, Result};

const VIEWS: Field = Field {
    name: "views",
    ty: Type::Map(&Type::Object(&[
        Field {
            name: "fps",
            ty: Type::Fps,
            default: Default::Is("native"),
            doc: "Frames a second.",
        },
        Field {
            name: "size",
            ty: Type::Size,
            default: Default::Is("native"),
            doc: "Pixels.",
        },
    ])),
    default: Default::Required,
    doc: "Views.",
};

const STREAM: &[Field] = &[
    Field {
        name: "id",
        ty: Type::Text,
        default: Default::Absent,
        doc: "Its id.",
    },
    Field {
        name: "url",
        ty: Type::Text,
        default: Default::Required,
        doc: "Where it is.",
    },
];

const SHOTS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&["TransNetV2"]),
        default: Default::Required,
        doc: "The model.",
    },
    Field {
        name: "threshold",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.5"),
        doc: "From where on it is a cut.",
    },
    Field {
        name: "max_length",
        ty: Type::Duration,
        default: Default::Is("15s"),
        doc: "The longest segment.",
    },
    Field {
        name: "on_gap",
        ty: Type::Choice(&["close", "bridge"]),
        default: Default::Is("close"),
        doc: "What a gap does.",
    },
];

const CAPTION: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&["LlamaForCausalLM"]),
        default: Default::Required,
        doc: "The model.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Is("Say {tags}."),
        doc: "What is asked.",
    },
    Field {
        name: "platform",
        ty: Type::Text,
        default: Default::Is(""),
        doc: "What for.",
    },
    Field {
        name: "key",
        ty: Type::Secret,
        default: Default::Absent,
        doc: "A secret.",
    },
];

/// Every kind of these tests.
pub static KINDS: &[&StageKind] = &[
    &FILE,
    &LIVE,
    &TICKS,
    &AGAIN,
    &SHOTS_KIND,
    &ENCODE,
    &WINDOWS,
    &THUMBS,
    &STILLS,
    &TITLES,
    &TELL,
    &BOTH,
    &CAPTION_KIND,
    &KAFKA,
    &FILES,
    &REDIS,
    &WATCH,
];

static FILE: StageKind = kind(
    "file",
    &[],
    &[PayloadKind::Frame],
    &[PATHS, VIEWS],
    Build::Source(source),
);
static LIVE: StageKind = StageKind {
    endpoint: Endpoint::Live,
    ..kind(
        "live",
        &[],
        &[PayloadKind::Frame],
        &[STREAMS, VIEWS],
        Build::Source(source),
    )
};
static TICKS: StageKind = kind(
    "ticks",
    &[],
    &[PayloadKind::Event],
    &[],
    Build::Source(source),
);
static AGAIN: StageKind = kind(
    "again",
    &[PayloadKind::Event],
    &[PayloadKind::Event],
    &[],
    Build::Stateless(transform),
);
static SHOTS_KIND: StageKind = StageKind {
    lookahead: |params: &Params| Lookahead {
        longest: params.duration("max_length"),
        frames: 50,
    },
    ..kind(
        "shots",
        &[PayloadKind::Frame],
        &[PayloadKind::Segment],
        SHOTS,
        Build::Sequential(stateful),
    )
};
static ENCODE: StageKind = kind(
    "encode",
    &[PayloadKind::Frame],
    &[PayloadKind::Embedding],
    &[MODEL, WORDS],
    Build::Stateless(transform),
);
static WINDOWS: StageKind = StageKind {
    lookahead: |_: &Params| Lookahead {
        longest: Duration::from_secs(10),
        frames: 0,
    },
    ..kind(
        "windows",
        &[PayloadKind::Frame],
        &[PayloadKind::Embedding],
        &[],
        Build::Windowed(stateful),
    )
};
static THUMBS: StageKind = kind(
    "thumbs",
    &[PayloadKind::Frame],
    &[PayloadKind::Picture],
    &[],
    Build::Stateless(transform),
);
static STILLS: StageKind = StageKind {
    joins: Joins::Always(PayloadKind::Segment),
    ..kind(
        "stills",
        &[PayloadKind::Segment, PayloadKind::Frame],
        &[PayloadKind::Picture],
        &[],
        Build::Stateless(transform),
    )
};
static TITLES: StageKind = StageKind {
    joins: Joins::Per(PayloadKind::Segment),
    ..kind(
        "titles",
        &[PayloadKind::Segment, PayloadKind::Embedding],
        &[PayloadKind::Caption],
        &[],
        Build::Stateless(transform),
    )
};
static TELL: StageKind = StageKind {
    joins: Joins::ByModel(&[
        (&["LlamaForCausalLM"], Joins::Per(PayloadKind::Segment)),
        (
            &["ResNet"],
            Joins::Either {
                alone: PayloadKind::Frame,
                per: PayloadKind::Segment,
            },
        ),
    ]),
    ..kind(
        "tell",
        &[
            PayloadKind::Segment,
            PayloadKind::Frame,
            PayloadKind::Embedding,
        ],
        &[PayloadKind::Caption],
        &[TELLER],
        Build::Stateless(transform),
    )
};
static BOTH: StageKind = kind(
    "both",
    &[
        PayloadKind::Segment,
        PayloadKind::Frame,
        PayloadKind::Embedding,
    ],
    &[PayloadKind::Picture],
    &[],
    Build::Stateless(transform),
);
static CAPTION_KIND: StageKind = kind(
    "caption",
    &[
        PayloadKind::Segment,
        PayloadKind::Embedding,
        PayloadKind::Event,
    ],
    &[PayloadKind::Caption],
    CAPTION,
    Build::Stateless(transform),
);
static KAFKA: StageKind = StageKind {
    endpoint: Endpoint::Kafka,
    ..kind("kafka", &PayloadKind::ALL, &[], &[], Build::Sink(sink))
};
static FILES: StageKind = kind("file", &PayloadKind::ALL, &[], &[FOLDER], Build::Sink(sink));
static REDIS: StageKind = kind("redis", &PayloadKind::ALL, &[], &[], Build::Sink(sink));
static WATCH: StageKind = kind(
    "watch",
    &[PayloadKind::Caption],
    &[],
    &[OF],
    Build::Sink(sink),
);

const PATHS: Field = Field {
    name: "paths",
    ty: Type::List(&Type::Text),
    default: Default::Required,
    doc: "Films.",
};
const STREAMS: Field = Field {
    name: "streams",
    ty: Type::List(&Type::Object(STREAM)),
    default: Default::Required,
    doc: "Streams.",
};
const MODEL: Field = Field {
    name: "model",
    ty: Type::Model(&["ResNet", "Encoder"]),
    default: Default::Required,
    doc: "The model.",
};
const WORDS: Field = Field {
    name: "words",
    ty: Type::ModelSpecific(&["Encoder", "Towers"], &Type::List(&Type::Text)),
    default: Default::Absent,
    doc: "What is looked for.",
};
const TELLER: Field = Field {
    name: "model",
    ty: Type::Model(&["LlamaForCausalLM", "ResNet"]),
    default: Default::Required,
    doc: "The model.",
};
const FOLDER: Field = Field {
    name: "path",
    ty: Type::Text,
    default: Default::Is("./out"),
    doc: "The folder.",
};
const OF: Field = Field {
    name: "of",
    ty: Type::Stage,
    default: Default::Absent,
    doc: "A stage.",
};

const fn kind(
    name: &'static str,
    accepts: &'static [PayloadKind],
    emits: &'static [PayloadKind],
    params: &'static [Field],
    build: Build,
) -> StageKind {
    StageKind {
        name,
        doc: "A kind of these tests.",
        accepts,
        emits,
        params,
        joins: Joins::AsWritten,
        endpoint: Endpoint::Other,
        lookahead: Lookahead::none,
        build,
    }
}

fn never<T>() -> Result<T> {
    Err(Error::bug("these kinds are checked, never built"))
}

fn source(_: &Context<'_>) -> Result<Arc<dyn Source>> {
    never()
}

fn transform(_: &Context<'_>) -> Result<Arc<dyn Transform>> {
    never()
}

fn stateful(_: &Context<'_>) -> Result<OpenTransform> {
    never()
}

fn sink(_: &Context<'_>) -> Result<Arc<dyn Sink>> {
    never()
}
