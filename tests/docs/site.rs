//! A folder in which the commands of the pages work: models whose `config.json` is all that there
//! is, a film's name, and the repository's own folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::root;

/// The models that pages name by their folders, and what each is.
const MODELS: [(&str, &str); 7] = [
    ("transnetv2", "TransNetV2"),
    ("resnet-18", "ResNetForImageClassification"),
    ("SmolLM2-135M-Instruct", "LlamaForCausalLM"),
    ("whisper-tiny", "WhisperForConditionalGeneration"),
    ("silero-vad", "SileroVad"),
    ("opus-encoder", "OpusEncoder"),
    ("clip", "CLIPModel"),
];

/// Variables that pages leave to whoever runs them.
const VARIABLES: [(&str, &str); 4] = [
    ("KAFKA_BROKERS", "127.0.0.1:9092"),
    ("REGISTRY_URL", "http://127.0.0.1:8081"),
    ("RTMP_URL", "rtmp://127.0.0.1/live/one"),
    ("CAMERA_USER", "viewer"),
];

pub(super) struct Site {
    folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (name, architecture) in MODELS {
            let model = path.join("models").join(name);
            fs::create_dir_all(&model).unwrap();
            let config = format!("{{ \"architectures\": [\"{architecture}\"] }}");
            fs::write(model.join("config.json"), config).unwrap();
        }
        fs::create_dir(path.join("films")).unwrap();
        fs::write(path.join("films/wannaworktogether.mp4"), "a film").unwrap();
        fs::create_dir(path.join("secrets")).unwrap();
        for name in ["kafka", "registry"] {
            fs::write(path.join("secrets").join(name), "hush").unwrap();
        }
        for name in ["ops", "pipelines", "schemas", "tests"] {
            symlink(root().join(name), path.join(name)).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The binary in this folder, with the variables that pages leave open.
    pub fn opusflow(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_opusflow"))
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .env_remove("OPUSFLOW_MODELS")
            .env_remove("RUST_BACKTRACE")
            .env_remove("OMP_WAIT_POLICY")
            .env("HF_HOME", self.path().join("hub"))
            .envs(VARIABLES)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap()
    }

    /// What `opusflow` says; it must end well.
    pub fn said(&self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let output = self.opusflow(&arguments, &[]);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}
