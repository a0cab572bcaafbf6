//! Every network, in the one table that lists them, and what is asked of the table: which classes
//! do a task, and the network of a folder. To add a network: write its file with its `NETWORK`, add
//! its line to [`NETWORKS`].

use super::folder::ModelFolder;
use super::network_spec::{FrameEncoderSpec, Load, NetworkSpec, NetworkTask};
use super::text::CausalLm;
use super::{
    blip, clip, diffusion, dinov2, gpt2, llama, opus_captions, opus_encoder, resnet, siglip,
    silero_vad, torchscript, transnetv2, whisper,
};
use crate::error::{Error, Result};
use crate::tensor::{Device, Precision};

/// Every network, in the order in which lists of classes name them.
pub const NETWORKS: &[NetworkSpec] = &[
    transnetv2::NETWORK,
    clip::NETWORK,
    dinov2::NETWORK,
    opus_encoder::NETWORK,
    resnet::NETWORK,
    siglip::NETWORK,
    llama::NETWORK,
    gpt2::NETWORK,
    blip::NETWORK,
    opus_captions::NETWORK,
    whisper::NETWORK,
    silero_vad::NETWORK,
    torchscript::NETWORK,
    diffusion::pipeline::NETWORK,
];

/// The classes of the networks that do one of these tasks, as a constant.
macro_rules! classes_of {
    ($($task:ident),+) => {{
        const TASKS: &[NetworkTask] = &[$(NetworkTask::$task),+];
        const COUNT: usize = count(TASKS);
        const CLASSES: [&str; COUNT] = classes(TASKS);
        &CLASSES
    }};
}

/// Those that find shots.
pub const SHOT_DETECTORS: &[&str] = classes_of!(DetectShots);
/// Those that make vectors of frames or of windows of frames.
pub const ENCODERS: &[&str] = classes_of!(EncodeFrames, EncodeFramesAndTexts, EncodeClips);
/// Those of the encoders that make vectors of texts too.
pub const TEXT_ENCODERS: &[&str] = classes_of!(EncodeFramesAndTexts);
/// Those that write captions, whatever they are given.
pub const CAPTIONERS: &[&str] = classes_of!(GenerateText, CaptionPictures, CaptionClips);
/// Those of the captioners that are given a prompt.
pub const LANGUAGE_MODELS: &[&str] = classes_of!(GenerateText);
/// Those of the captioners that are given a picture.
pub const PICTURE_CAPTIONERS: &[&str] = classes_of!(CaptionPictures);
/// Those of the captioners that are given the vectors of a clip.
pub const CLIP_CAPTIONERS: &[&str] = classes_of!(CaptionClips);
/// Those that write speech down.
pub const TRANSCRIBERS: &[&str] = classes_of!(Transcribe);
/// Those that find where somebody speaks.
pub const SPEECH_DETECTORS: &[&str] = classes_of!(DetectSpeech);
/// Modules that anybody saved.
pub const MODULES: &[&str] = classes_of!(RunModule);
/// Those that make pictures.
pub const PICTURE_GENERATORS: &[&str] = classes_of!(GeneratePictures);

/// How many classes do one of `tasks`.
const fn count(tasks: &[NetworkTask]) -> usize {
    let (mut count, mut network) = (0, 0);
    while network < NETWORKS.len() {
        let mut class = 0;
        while class < NETWORKS[network].classes.len() {
            count += is_among(NETWORKS[network].classes[class].1, tasks) as usize;
            class += 1;
        }
        network += 1;
    }
    count
}

/// The classes that do one of `tasks`, as many as [`count`] says.
const fn classes<const N: usize>(tasks: &[NetworkTask]) -> [&'static str; N] {
    let mut found = [""; N];
    let (mut count, mut network) = (0, 0);
    while network < NETWORKS.len() {
        let mut class = 0;
        while class < NETWORKS[network].classes.len() {
            let (name, task) = NETWORKS[network].classes[class];
            if is_among(task, tasks) {
                found[count] = name;
                count += 1;
            }
            class += 1;
        }
        network += 1;
    }
    found
}

const fn is_among(task: NetworkTask, tasks: &[NetworkTask]) -> bool {
    let mut at = 0;
    while at < tasks.len() {
        if tasks[at] as u8 == task as u8 {
            return true;
        }
        at += 1;
    }
    false
}

/// The network that a folder's class names, and what it does.
///
/// # Errors
/// Config, where no network is called so; model, where the folder names none.
pub fn of_folder(folder: &ModelFolder) -> Result<(&'static NetworkSpec, NetworkTask)> {
    let class = folder.architecture()?;
    let found = NETWORKS
        .iter()
        .find_map(|network| Some((network, network.task(class)?)));
    found.ok_or_else(|| {
        let known: Vec<&str> = all_classes().collect();
        Error::config(format!(
            "{}: no network here is called {class}",
            folder.path().display()
        ))
        .hint(format!("those that are read: {}", known.join(", ")))
    })
}

/// The classes of all networks.
pub fn all_classes() -> impl Iterator<Item = &'static str> {
    NETWORKS
        .iter()
        .flat_map(|network| network.classes)
        .map(|(name, _)| *name)
}

/// The encoder of frames that a folder is of.
///
/// # Errors
/// As for [`of_folder`]; config, where its network does something else.
pub fn frame_encoder(folder: &ModelFolder) -> Result<FrameEncoderSpec> {
    match of_folder(folder)?.0.load {
        Load::FrameEncoder(spec) => Ok(spec),
        _ => Err(unfit(folder, "makes no vectors of frames")),
    }
}

/// Reads a language model's folder: the network, its tokenizer and how its texts end.
///
/// # Errors
/// As for [`of_folder`]; config, where its network does something else or the folder lacks a file;
/// model, where a file is not what it should be; external, where one cannot be read; overload,
/// where memory is short.
pub fn load_causal_lm(
    folder: &ModelFolder,
    device: Device,
    precision: Precision,
) -> Result<CausalLm> {
    match of_folder(folder)?.0.load {
        Load::LanguageModel(load) => {
            CausalLm::load(folder, |folder| load(folder, device, precision))
        }
        _ => Err(unfit(folder, "writes no texts")),
    }
}

/// Reads the network of a folder on the CPU and drops it again: whether the folder holds what its
/// network is read from, key by key.
///
/// # Errors
/// Config, where files are missing or no network is called so; model, with every key of the weights
/// that is missing, has another shape or is left over; external, where a file cannot be read.
pub fn check_weights(folder: &ModelFolder) -> Result<()> {
    // The shapes are the same in every precision; this one needs half the memory.
    let (device, precision) = (Device::Cpu, Precision::BF16);
    match of_folder(folder)?.0.load {
        Load::FrameEncoder(spec) => (spec.load)(folder, device, precision).map(drop),
        Load::LanguageModel(_) => load_causal_lm(folder, device, precision).map(drop),
        Load::Checked(load) => load(folder, device, precision),
    }
}

fn unfit(folder: &ModelFolder, what: &str) -> Error {
    Error::config(format!("model {} {what}", folder.path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_is_one_networks() {
        let classes: Vec<_> = all_classes().collect();
        let distinct: BTreeSet<_> = classes.iter().collect();
        assert_eq!(distinct.len(), classes.len(), "{classes:?}");
    }

    /// How a network loads is what the workers of its task ask for.
    #[test]
    fn every_network_loads_as_its_tasks_need_it() {
        for network in NETWORKS {
            for (class, task) in network.classes {
                let fits = match network.load {
                    Load::FrameEncoder(_) => {
                        matches!(
                            task,
                            NetworkTask::EncodeFrames | NetworkTask::EncodeFramesAndTexts
                        )
                    }
                    Load::LanguageModel(_) => *task == NetworkTask::GenerateText,
                    Load::Checked(_) => !matches!(
                        task,
                        NetworkTask::EncodeFrames
                            | NetworkTask::EncodeFramesAndTexts
                            | NetworkTask::GenerateText
                    ),
                };
                assert!(fits, "{class}");
            }
        }
    }

    #[test]
    fn classes_are_asked_for_by_task() {
        assert_eq!(TEXT_ENCODERS, ["CLIPModel", "SiglipModel"]);
        assert_eq!(SHOT_DETECTORS, ["TransNetV2"]);
        let parts = LANGUAGE_MODELS.len() + PICTURE_CAPTIONERS.len() + CLIP_CAPTIONERS.len();
        assert_eq!(CAPTIONERS.len(), parts);
    }
}
