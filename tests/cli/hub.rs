//! `opusflow models`: pulled from a hub on loopback, listed, verified, and run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::hub::{Act, Hub, Repository};
use crate::support::live::{Live, Run};
use crate::support::pipeline::generated;
use crate::support::{Place, models, records};

const FILES: &str =
    "  - { id: files, kind: file, inputs: [thinned], with: { path: ./out, formats: [jsonl] } }\n";

/// A trained model of the examples as a hub would have it.
fn resnet() -> Repository {
    let folder = Path::new(&models()).join("resnet-18");
    let named = |name: &str| (name.to_owned(), std::fs::read(folder.join(name)).unwrap());
    let mut repository = Repository::of("owner/resnet", 1);
    repository.files.remove("tokenizer.json");
    repository.files.extend(
        [
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ]
        .map(named),
    );
    repository
}

/// A command whose hub and whose cache are the test's own.
fn call(place: &Place, hub: &str, more: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = place.opusflow(arguments);
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ] {
        command.env_remove(name);
    }
    command
        .env("HF_HOME", place.path("hf"))
        .env("HF_ENDPOINT", hub)
        .envs(more.iter().copied());
    Live::spawn(command).wait()
}

/// The safetensors file with its header changed, in a folder of its own beside the model's other
/// files.
fn changed(
    place: &Place,
    name: &str,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> PathBuf {
    let folder = place.path(name);
    std::fs::create_dir(&folder).unwrap();
    let repository = resnet();
    std::fs::write(folder.join("config.json"), &repository.files["config.json"]).unwrap();
    let weights = &repository.files["model.safetensors"];
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let parts = [
        &(header.len() as u64).to_le_bytes()[..],
        &header,
        &weights[8 + length..],
    ];
    std::fs::write(folder.join("model.safetensors"), parts.concat()).unwrap();
    folder
}

#[test]
fn a_model_is_pulled_listed_verified_and_found_damaged() {
    let place = Place::new();
    let hub = Hub::serve(resnet(), |request| {
        match (request.elsewhere, request.earlier) {
            (true, 0) => Act::Cut(20_000_000),
            _ => Act::Honest,
        }
    });
    let at = |arguments: &[&str]| call(&place, &hub.url(), &[], arguments);
    let pulled = at(&["models", "pull", "owner/resnet"]).ended(0);
    let folder = PathBuf::from(pulled.stdout.trim_end());
    assert_eq!(
        folder.parent().unwrap(),
        place.path("hf/hub/models--owner--resnet/snapshots")
    );
    for said in [
        "owner/resnet is 0123456: 3 files",
        "left out, in a format that is not read: pytorch_model.bin",
        "trying again",
        "its hash is right",
    ] {
        assert!(pulled.stderr.contains(said), "{said}:\n{}", pulled.stderr);
    }
    assert!(hub.seen().iter().any(|request| {
        request
            .headers
            .get("range")
            .is_some_and(|range| range.starts_with("bytes="))
    }));

    let listed = at(&["models", "list", "--json"]).ended(0);
    let listed: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
    let of = |name: &str| {
        listed
            .iter()
            .find(|model| model["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {listed:?}"))
    };
    let resnet = of("owner/resnet");
    assert_eq!(
        (&resnet["architecture"], &resnet["format"]),
        (&json!("ResNetForImageClassification"), &json!("f32"))
    );
    assert_eq!(
        (&resnet["stages"], &resnet["refs"], &resnet["problem"]),
        (&json!(["encode"]), &json!(["main"]), &Value::Null)
    );
    assert!(
        resnet["parameters"].as_u64().unwrap() > 11_000_000
            && resnet["bytes"].as_u64().unwrap() > 46_000_000,
        "{resnet}"
    );
    assert_eq!(of("resnet-18")["parameters"], resnet["parameters"]);
    let table = at(&["models", "list"]).ended(0).stdout;
    let row = table
        .lines()
        .find(|line| line.starts_with("owner/resnet"))
        .unwrap();
    assert_eq!(row.split_whitespace().nth(1), Some("0123456"), "{table}");

    let verified = at(&[
        "models",
        "verify",
        "owner/resnet",
        "resnet-18",
        folder.to_str().unwrap(),
    ])
    .ended(0)
    .stdout;
    assert!(
        verified.lines().count() == 3 && verified.lines().all(|line| line.starts_with("ok ")),
        "{verified}"
    );
    assert!(
        verified.contains("every key fits; 3 hashes are right"),
        "{verified}"
    );

    let blob = folder.join("model.safetensors").canonicalize().unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let damaged = at(&["models", "verify", "resnet-18", "owner/resnet"])
        .ended(2)
        .stdout;
    assert!(
        damaged.contains("ok   resnet-18") && damaged.contains("BAD  owner/resnet"),
        "{damaged}"
    );
    assert!(
        damaged.contains("the hash of") && damaged.contains(&format!("delete {}", blob.display())),
        "{damaged}"
    );
}

#[test]
fn weights_that_do_not_fit_are_refused_key_by_key() {
    let place = Place::new();
    let folder = changed(&place, "unfit", |header| {
        let stem = header.remove("conv1.weight").unwrap();
        header.insert("conv0.weight".to_owned(), stem);
        header["fc.weight"]["shape"] = json!([512, 1000]);
    });
    let said = place
        .call(["models", "verify", folder.to_str().unwrap()])
        .ended(2)
        .stdout;
    for fault in [
        "missing 1: conv1.weight [64, 3, 7, 7]",
        "misshapen 1: fc.weight is [512, 1000], not [1000, 512]",
        "surplus 1: conv0.weight",
    ] {
        assert!(said.contains(fault), "{fault}:\n{said}");
    }
    let cut = changed(&place, "cut", |_| {});
    let weights = std::fs::read(cut.join("model.safetensors")).unwrap();
    std::fs::write(cut.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let said = place
        .call(["models", "verify", cut.to_str().unwrap()])
        .ended(2)
        .stdout;
    assert!(said.contains("is not a whole safetensors file"), "{said}");
    std::fs::write(
        cut.join("config.json"),
        r#"{"architectures": ["ResNetForMusic"]}"#,
    )
    .unwrap();
    std::fs::write(cut.join("model.safetensors"), weights).unwrap();
    let said = place
        .call(["models", "verify", cut.to_str().unwrap()])
        .ended(2)
        .stdout;
    assert!(
        said.contains("no network here is called ResNetForMusic") && said.contains("TransNetV2"),
        "{said}"
    );
}

/// test -> encode -> file: the model is fetched first, and the records carry its id.
#[test]
fn a_run_fetches_what_is_missing_when_its_file_says_so() {
    let place = Place::new();
    let hub = Hub::serve(resnet(), |_| Act::Honest);
    let file = |model: &str| {
        let text = generated(
            &format!("models: {{ tags: {{ path: owner/resnet{model} }} }}"),
            "frames: 4",
            FILES,
        );
        place.write(
            "pipeline.yaml",
            text.replace("kind: sample", "kind: encode")
                .replace("every: 2", "model: tags"),
        )
    };
    let run = |pipeline: &Path, more: &[(&str, &str)]| {
        call(
            &place,
            &hub.url(),
            more,
            &["run", "--quiet", pipeline.to_str().unwrap()],
        )
    };
    let refused = run(&file(""), &[]).ended(2);
    assert!(
        refused
            .stderr
            .contains("run `opusflow models pull owner/resnet`, or put its config.json"),
        "{}",
        refused.stderr
    );
    let offline = run(&file(", pull: missing"), &[("HF_HUB_OFFLINE", "1")]).ended(2);
    assert!(
        offline.stderr.contains("unset HF_HUB_OFFLINE"),
        "{}",
        offline.stderr
    );
    assert!(hub.seen().is_empty());
    call(
        &place,
        &hub.url(),
        &[],
        &["validate", file(", pull: missing").to_str().unwrap()],
    )
    .ended(0);
    assert!(hub.seen().is_empty(), "a check fetches nothing");

    run(&file(", pull: missing"), &[]).ended(0);
    let (_, found) = records::of_files(&place.path("out"));
    let embedding = found["embeddings"].values().next().unwrap();
    assert_eq!(embedding["meta"]["model"]["id"], "owner/resnet");
    let asked = hub.seen().len();
    std::fs::remove_dir_all(place.path("out")).unwrap();
    run(&file(""), &[("HF_HUB_OFFLINE", "1")]).ended(0);
    assert_eq!(hub.seen().len(), asked, "what is there is not asked for");

    let other = file("@v2, pull: missing");
    let gone = Hub::serve(resnet(), |_| {
        Act::Status(404, vec![("x-error-code", "RevisionNotFound".to_owned())])
    });
    let gone = call(
        &place,
        &gone.url(),
        &[],
        &["run", "--quiet", other.to_str().unwrap()],
    )
    .ended(2);
    assert!(
        gone.stderr
            .contains("model `tags`: owner/resnet has no revision `v2`"),
        "{}",
        gone.stderr
    );
}

#[test]
fn a_folder_is_filled_and_found_by_its_name() {
    let place = Place::new();
    let hub = Hub::serve(resnet(), |_| Act::Honest);
    let pulled = call(
        &place,
        &hub.url(),
        &[],
        &[
            "models",
            "pull",
            "--quiet",
            "owner/resnet",
            "--to",
            "mine/tags",
        ],
    )
    .ended(0);
    assert_eq!(
        (pulled.stdout.as_str(), pulled.stderr.as_str()),
        ("mine/tags\n", "")
    );
    assert!(!place.path("hf").exists());
    let verified = call(
        &place,
        &hub.url(),
        &[],
        &["models", "verify", "--model-dir", "mine", "tags"],
    )
    .ended(0)
    .stdout;
    assert!(verified.contains("3 hashes are right"), "{verified}");
    let listed = call(
        &place,
        &hub.url(),
        &[],
        &["models", "list", "--model-dir", "mine", "--json"],
    )
    .ended(0)
    .stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&listed).unwrap()[0]["commit"],
        resnet().commit
    );
    std::fs::write(place.path("mine/tags/preprocessor_config.json"), "{}").unwrap();
    let verified = call(
        &place,
        &hub.url(),
        &[],
        &["models", "verify", "--model-dir", "mine", "tags"],
    )
    .ended(2)
    .stdout;
    assert!(
        verified.contains("the hash of mine/tags/preprocessor_config.json"),
        "{verified}"
    );
}

#[test]
fn pulls_that_fail_end_with_2_or_3() {
    let place = Place::new();
    let closed = format!(
        "http://{}",
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    );
    let away = call(&place, &closed, &[], &["models", "pull", "owner/resnet"]).ended(3);
    let folder = Path::new(&models()).join("owner/resnet");
    assert!(
        away.stderr
            .contains(&format!("tokenizer.json into {}", folder.display())),
        "{}",
        away.stderr
    );
    let private = Hub::serve(resnet(), |request| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer hf_mine") => Act::Honest,
            _ if request.elsewhere => Act::Honest,
            _ => Act::Status(401, vec![("x-error-code", "RepoNotFound".to_owned())]),
        }
    });
    let refused = call(
        &place,
        &private.url(),
        &[],
        &["models", "pull", "owner/resnet"],
    )
    .ended(2);
    assert!(
        refused.stderr.contains(&format!(
            "put a token of yours into {}",
            place.path("hf/token").display()
        )),
        "{}",
        refused.stderr
    );
    place.write("secret", "hf_mine\n");
    let token = [("HF_TOKEN_PATH", "secret")];
    let given = call(
        &place,
        &private.url(),
        &token,
        &["models", "pull", "owner/resnet"],
    )
    .ended(0);
    assert!(!given.stderr.contains("hf_mine"), "{}", given.stderr);
    call(
        &place,
        &private.url(),
        &[],
        &["models", "pull", "../resnet"],
    )
    .ended(2);
    let unknown = call(
        &place,
        &private.url(),
        &[],
        &["models", "verify", "owner/other"],
    )
    .ended(2);
    assert!(
        unknown
            .stdout
            .contains("`opusflow models pull owner/other` fetches it"),
        "{}",
        unknown.stdout
    );
}
