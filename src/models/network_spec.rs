//! What is known of a network before it is loaded: the classes that config.json calls it by, what
//! it does for a stage, and how a folder of it is loaded.

use std::sync::Arc;

use super::folder::ModelFolder;
use super::picture_encoder::PictureEncoder;
use super::text::LanguageModel;
use crate::error::{Error, Result};
use crate::tensor::{Device, Precision};

/// What a network does for a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkTask {
    /// The probability of a cut at every frame of a window.
    DetectShots,
    /// A vector for every frame, and where it is a classifier the probabilities of its classes.
    EncodeFrames,
    /// A vector for every frame, and one in the same space for every text.
    EncodeFramesAndTexts,
    /// A vector for every window of frames.
    EncodeClips,
    /// Texts that answer prompts.
    GenerateText,
    /// Captions of pictures.
    CaptionPictures,
    /// Captions of clips, given the vectors of their windows.
    CaptionClips,
    /// What is said in sound.
    Transcribe,
    /// The probability of speech in every chunk of sound.
    DetectSpeech,
    /// Whatever a TorchScript module makes of a frame.
    RunModule,
    /// Pictures from prompts, noise and other pictures.
    GeneratePictures,
}

/// A network's entry in [`NETWORKS`](super::networks::NETWORKS).
#[derive(Debug, Clone, Copy)]
pub struct NetworkSpec {
    /// Its classes, as `architectures` of config.json or `_class_name` of model_index.json has
    /// them, each with its task.
    pub classes: &'static [(&'static str, NetworkTask)],
    /// How a folder of it is loaded.
    pub load: Load,
}

/// Loads a folder onto a device, in a number format.
pub type LoadFn<T> = fn(&ModelFolder, Device, Precision) -> Result<T>;

/// How a folder is loaded. Tasks that several networks do are met through a trait; the network of a
/// task that no other does is known by its own type to the worker that runs it.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// For [`NetworkTask::EncodeFrames`] and [`NetworkTask::EncodeFramesAndTexts`].
    FrameEncoder(FrameEncoderSpec),
    /// For [`NetworkTask::GenerateText`]; the tokenizer is loaded beside it.
    LanguageModel(LoadFn<Box<dyn LanguageModel>>),
    /// For the other tasks: loads the network and drops it again, which shows whether the folder
    /// holds all that it is read from.
    Checked(LoadFn<()>),
}

/// How the names of a network's classes are read from its folder; none where it is no classifier.
pub type ClassNamesFn = fn(&ModelFolder) -> Result<Option<Arc<[Arc<str>]>>>;

/// What is known of an encoder of frames.
#[derive(Debug, Clone, Copy)]
pub struct FrameEncoderSpec {
    /// Loads the network.
    pub load: LoadFn<Box<dyn PictureEncoder>>,
    /// The names of its classes from config.json alone; none where it is no classifier.
    pub class_names: ClassNamesFn,
    /// Whether its vectors have length 1.
    pub unit_length: bool,
}

impl NetworkSpec {
    /// What it does as a network of `class`; none where it is not called so.
    pub fn task(&self, class: &str) -> Option<NetworkTask> {
        self.classes
            .iter()
            .find(|(name, _)| *name == class)
            .map(|(_, task)| *task)
    }

    /// The task of a folder's network.
    ///
    /// # Errors
    /// Config, where the folder is another network's: the YAML points a stage at it.
    pub(super) fn expect(&self, folder: &ModelFolder) -> Result<NetworkTask> {
        let found = folder.architecture()?;
        self.task(found).ok_or_else(|| {
            let names: Vec<&str> = self.classes.iter().map(|(name, _)| *name).collect();
            Error::config(format!(
                "model {} is a {found}, a {} is needed here",
                folder.path().display(),
                names.join(" or ")
            ))
        })
    }
}
