//! The keys of an entry of `models`.

use super::field::field;
use crate::config::shape::Default::{Absent, Is, Required};
use crate::config::shape::{Field, Type};

/// The words that `profile` takes; what each sets is in `check/sections/profiles.rs`.
pub(crate) const PROFILES: &[&str] = &["throughput", "latency", "memory", "small_models"];

/// The keys of an entry of `models`.
pub const MODEL: &[Field] = &[
    field(
        "path",
        Type::Text,
        Required,
        "The model's folder inside `model_dir`, or a path that begins with `/`, `./` or `../`, or \
         a hub id, `owner/name` or `owner/name@revision`.",
    ),
    field(
        "pull",
        Type::Choice(&["never", "missing"]),
        Is("never"),
        "With a hub id: whether `run` fetches a `missing` model first, as `opusflow models pull` \
         does, or `never` fetches anything.",
    ),
    field(
        "small",
        Type::Text,
        Absent,
        "A smaller model of the same kind, found as `path` is, which `size: small` takes in its \
         place.",
    ),
    field(
        "size",
        Type::Choice(&["full", "small"]),
        Is("full"),
        "`small` takes the model of the key `small`; a profile's `small` leaves entries without \
         that key as they are.",
    ),
    field(
        "profile",
        Type::Choice(PROFILES),
        Absent,
        "Sets defaults of this entry in place of the pipeline's `profile`.",
    ),
    field(
        "precision",
        Type::Choice(&["auto", "f32", "bf16", "f16"]),
        Is("auto"),
        "The number format it computes in; `auto` is bf16 where the device is fast at it, else \
         f32.",
    ),
    field(
        "tf32",
        Type::Bool,
        Is("false"),
        "Whether f32 may be rounded to TF32 inside products on GPUs, which have it from compute \
         capability 8 on. One switch for the process: on only where every model allows it.",
    ),
    field(
        "attention",
        Type::Choice(&["sdpa", "sliced"]),
        Is("sdpa"),
        "`sdpa` is the fused kernel; `sliced` computes one head and some of its queries at a \
         time, which takes longer and less memory.",
    ),
    field(
        "vae",
        Type::Object(VAE),
        Is("{}"),
        "How the decoder of a diffusion model saves memory.",
    ),
    field(
        "offload",
        Type::Choice(&["none", "model"]),
        Is("none"),
        "`model` keeps the parts of a diffusion model in the CPU's memory until each is used, on \
         GPUs.",
    ),
    field(
        "device",
        Type::List(&Type::Text),
        Is("auto"),
        "`auto`, `cpu` or `cuda:N`; or a list, with a worker on each: work goes where the queue \
         is shortest.",
    ),
    field(
        "memory_limit",
        Type::Bytes,
        Absent,
        "What a worker's weights and running batch may hold on its device. A batch that needs \
         more is halved, as when memory runs out.",
    ),
    field(
        "batch",
        Type::Object(BATCH),
        Is("{}"),
        "How items of all streams are put together.",
    ),
    field(
        "queue",
        Type::Int(1, 65_536),
        Is("64"),
        "Items that may wait for a worker of the model; then stages wait.",
    ),
];

/// The key `vae` of a model.
const VAE: &[Field] = &[
    field(
        "slicing",
        Type::Bool,
        Is("false"),
        "Decodes one picture of a batch at a time.",
    ),
    field(
        "tiling",
        Type::Bool,
        Is("false"),
        "Decodes a picture in overlapping tiles, which large pictures need.",
    ),
];

/// The key `batch` of a model.
const BATCH: &[Field] = &[
    field(
        "max_size",
        Type::IntOrAuto(1, 4096),
        Is("16"),
        "Most items in a batch. `auto` measures it when the model is warm: doubled until that \
         gains less than a twentieth, memory ends, or half of `queue` is reached; remembered in \
         `model_cache`.",
    ),
    field(
        "max_wait",
        Type::Duration,
        Is("10ms"),
        "How long a batch that is not full waits for more.",
    ),
];
