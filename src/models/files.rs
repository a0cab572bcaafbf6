//! Which files of a folder hold the weights of its network, under the names that transformers and
//! Diffusers give them: one file, or numbered shards with an index, plain or as a variant such as
//! `fp16`.

use std::collections::{BTreeMap, BTreeSet};

const STEMS: [&str; 2] = ["model", "diffusion_pytorch_model"];

/// Variants that are taken where there is nothing plain, best first; others come after them.
const VARIANTS: [&str; 3] = ["fp32", "fp16", "bf16"];

/// The files of one set of weights.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightSet {
    /// `fp16`; none for plain names.
    pub variant: Option<String>,
    /// The index of the shards, where it is not one file.
    pub index: Option<String>,
    /// The safetensors files.
    pub files: Vec<String>,
}

impl WeightSet {
    /// The set that a network is read from, out of the names of its folder's files: that of
    /// `variant` where there is one, else the plain one, else another variant; a single file before
    /// shards. None where there are no weights under such names.
    pub fn among<'a>(
        names: impl IntoIterator<Item = &'a str>,
        variant: Option<&str>,
    ) -> Option<Self> {
        let rank = |set: &Self| match &set.variant {
            found if found.as_deref() == variant => 0,
            None => 1,
            Some(found) => {
                2 + VARIANTS
                    .iter()
                    .position(|known| known == found)
                    .unwrap_or(VARIANTS.len())
            }
        };
        sets(names)
            .into_iter()
            .min_by_key(|set| (rank(set), set.index.is_some()))
    }

    /// The variants that there are.
    pub fn variants<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        sets(names)
            .into_iter()
            .filter_map(|set| set.variant)
            .collect()
    }

    /// Whether a file is of the set.
    pub fn has(&self, name: &str) -> bool {
        self.index.as_deref() == Some(name) || self.files.iter().any(|file| file == name)
    }
}

/// Every whole set: a single file, or an index with what shards there are.
fn sets<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<WeightSet> {
    let mut single = Vec::new();
    let mut sharded: BTreeMap<(&str, Option<&str>), WeightSet> = BTreeMap::new();
    for name in names {
        let Some((stem, variant, part)) = parts(name) else {
            continue;
        };
        let sharded = sharded.entry((stem, variant));
        let of = || WeightSet {
            variant: variant.map(str::to_owned),
            ..WeightSet::default()
        };
        match part {
            Part::Whole => single.push(WeightSet {
                files: vec![name.to_owned()],
                ..of()
            }),
            Part::Shard => sharded.or_insert_with(of).files.push(name.to_owned()),
            Part::Index => sharded.or_insert_with(of).index = Some(name.to_owned()),
        }
    }
    let sharded = sharded.into_values().filter(|set| set.index.is_some());
    single.into_iter().chain(sharded).collect()
}

enum Part {
    Whole,
    Shard,
    Index,
}

/// Stem, variant and part, for example of `model.fp16-00001-of-00002.safetensors` or
/// `model.safetensors.index.fp16.json`.
fn parts(name: &str) -> Option<(&str, Option<&str>, Part)> {
    let stem = STEMS.into_iter().find(|stem| name.starts_with(stem))?;
    let rest = &name[stem.len()..];
    if let Some(variant) = rest
        .strip_prefix(".safetensors.index")
        .and_then(|rest| rest.strip_suffix(".json"))
    {
        return Some((stem, self::variant(variant)?, Part::Index));
    }
    let rest = rest.strip_suffix(".safetensors")?;
    let Some(at) = rest.find('-') else {
        return Some((stem, variant(rest)?, Part::Whole));
    };
    let (before, numbers) = rest.split_at(at);
    let (numbers, behind) = numbers.split_at(numbers.find('.').unwrap_or(numbers.len()));
    let (number, of) = numbers[1..].split_once("-of-")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let variant = match (variant(before)?, variant(behind)?) {
        (Some(_), Some(_)) => return None,
        (before, behind) => before.or(behind),
    };
    (digits(number) && digits(of)).then_some((stem, variant, Part::Shard))
}

/// `Some(None)` where there is none, None where it cannot be one.
fn variant(text: &str) -> Option<Option<&str>> {
    if text.is_empty() {
        return Some(None);
    }
    let word = text.strip_prefix('.')?;
    (!word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
    .then_some(Some(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], variant: Option<&str>) -> Vec<String> {
        let set = WeightSet::among(names.iter().copied(), variant).unwrap_or_default();
        set.index.into_iter().chain(set.files).collect()
    }

    #[test]
    fn plain_single_file_comes_first() {
        let unet = [
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
            "diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(chosen(&unet, None), ["diffusion_pytorch_model.safetensors"]);
        assert_eq!(
            chosen(&unet, Some("fp16")),
            ["diffusion_pytorch_model.fp16.safetensors"]
        );
        assert_eq!(
            chosen(&unet, Some("bf16")),
            ["diffusion_pytorch_model.safetensors"]
        );
        assert_eq!(
            WeightSet::variants(unet),
            ["fp16", "non_ema"].map(str::to_owned).into()
        );
        // As whisper-large-v3 has them.
        let whisper = [
            "model.fp32-00001-of-00002.safetensors",
            "model.fp32-00002-of-00002.safetensors",
            "model.safetensors",
            "model.safetensors.index.fp32.json",
        ];
        assert_eq!(chosen(&whisper, None), ["model.safetensors"]);
        assert_eq!(
            chosen(&whisper, Some("fp32")),
            [whisper[3], whisper[0], whisper[1]]
        );
    }

    #[test]
    fn shards_need_their_index_and_belong_to_one_variant() {
        let names = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model-00001-of-00001.fp16.safetensors",
        ];
        assert!(chosen(&names, None).is_empty());
        let indexed = [
            &names[..],
            &[
                "model.safetensors.index.json",
                "model.safetensors.index.fp16.json",
            ],
        ]
        .concat();
        assert_eq!(chosen(&indexed, None), [indexed[3], names[0], names[1]]);
        assert_eq!(chosen(&indexed, Some("fp16")), [indexed[4], names[2]]);
    }

    #[test]
    fn a_variant_alone_is_taken_half_before_the_unknown() {
        assert_eq!(
            chosen(
                &[
                    "model.int8.safetensors",
                    "model.fp16.safetensors",
                    "model.bf16.safetensors"
                ],
                None
            ),
            ["model.fp16.safetensors"]
        );
    }

    #[test]
    fn other_names_are_no_weights() {
        for name in [
            "adapter_model.safetensors",
            "model.safetensors.json",
            "model_v2.safetensors",
            "models.safetensors",
            "v1-5-pruned-emaonly.safetensors",
            "model-00001-of-x.safetensors",
            "model.a-00001-of-00002.b.safetensors",
            "model..safetensors",
            "model.bin",
        ] {
            assert!(parts(name).is_none(), "{name}");
        }
    }
}
