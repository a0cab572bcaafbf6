//! Pulls from a hub on loopback, whole and broken, honest and not.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

#[allow(dead_code, reason = "the integration tests use other parts of it")]
#[path = "../../../tests/support/hub.rs"]
mod served;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use parking_lot::Mutex;

use self::served::{Act, Hub, Repository, Request, git, sha256, weights};
use super::*;
use crate::error::Kind;
use crate::models::hub::hashes_of;

const ID: &str = "owner/name";

/// A cache that goes with the test, and what was told during its pulls.
struct Bench {
    home: tempfile::TempDir,
    hub: Hub,
    tries: u32,
    told: Mutex<Vec<String>>,
}

impl Bench {
    fn with(
        repository: Repository,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            home,
            hub: Hub::serve(repository, script),
            tries: 3,
            told: Mutex::default(),
        }
    }

    fn settings(&self, more: &[(&str, &str)]) -> HubSettings {
        let url = self.hub.url();
        let set = [
            ("HF_HOME", self.home.path().to_str().unwrap()),
            ("HF_ENDPOINT", url.as_str()),
        ];
        let known = |name: &str| {
            set.iter()
                .chain(more)
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        HubSettings::of(known).unwrap()
    }

    async fn pull_as(
        &self,
        id: &str,
        (variant, to): (Option<&str>, Option<&Path>),
        more: &[(&str, &str)],
    ) -> Result<Pulled> {
        let id = id.parse().unwrap();
        let retry = RetryPolicy {
            read_timeout: Duration::from_millis(500),
            tries: self.tries,
            first_pause: Duration::from_millis(1),
        };
        let pull = Pull {
            id: &id,
            variant,
            to,
            instead: Path::new("models/owner/name"),
            retry,
        };
        pull.run(&self.settings(more), &|step| {
            self.told.lock().push(format!("{step:?}"))
        })
        .await
    }

    async fn pull(&self) -> Result<Pulled> {
        self.pull_as(ID, (None, None), &[]).await
    }

    fn model(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--name")
    }

    /// Names of the blobs, whole and partial.
    fn blobs(&self) -> Vec<String> {
        names(&self.model().join("blobs"))
    }

    fn told(&self, what: &str) -> bool {
        self.told.lock().iter().any(|step| step.contains(what))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn range(request: &Request) -> Option<usize> {
    request.headers.get("range").map(|range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap()
            .parse()
            .unwrap()
    })
}

#[tokio::test]
async fn a_model_lies_in_the_cache_as_python_leaves_it() {
    let repository = Repository::of(ID, 1000);
    let bench = Bench::with(repository.clone(), |_| Act::Honest);
    let pulled = bench.pull().await.unwrap();
    assert_eq!(
        pulled.folder,
        bench.model().join("snapshots").join(&repository.commit)
    );
    assert_eq!(
        names(&pulled.folder),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    let mut hashes = Vec::new();
    for (name, hash) in [
        ("config.json", git as fn(&[u8]) -> String),
        ("model.safetensors", sha256),
        ("tokenizer.json", git),
    ] {
        let content = &repository.files[name];
        assert_eq!(&fs::read(pulled.folder.join(name)).unwrap(), content);
        assert_eq!(
            fs::read_link(pulled.folder.join(name)).unwrap(),
            Path::new("../../blobs").join(hash(content))
        );
        hashes.push(hash(content));
    }
    hashes.sort();
    assert_eq!(bench.blobs(), hashes);
    assert_eq!(
        fs::read_to_string(bench.model().join("refs/main")).unwrap(),
        repository.commit
    );
    assert!(
        bench.hub.seen_of("pytorch_model.bin").is_empty()
            && bench.hub.seen_of("README.md").is_empty()
    );
    let all: usize = hashes.len() - 1 + 2;
    assert_eq!(
        bench.hub.seen().len(),
        1 + all,
        "a large file is asked for twice: here, and where it is redirected to"
    );

    let again = bench.pull().await.unwrap();
    assert_eq!((again.fetched, again.folder), (0, pulled.folder));
    assert_eq!(bench.hub.seen().len(), 1 + all + 1, "only the listing");
}

#[tokio::test]
async fn revisions_are_kept_side_by_side() {
    let bench = Bench::with(Repository::of(ID, 10), |_| Act::Honest);
    bench
        .pull_as("owner/name@refs/pr/1", (None, None), &[])
        .await
        .unwrap();
    assert_eq!(
        bench.hub.seen()[0].path,
        "/api/models/owner/name/revision/refs%2Fpr%2F1?blobs=true"
    );
    assert_eq!(names(&bench.model().join("refs")), ["refs"]);
    let settings = bench.settings(&[]);
    assert!(
        settings
            .cache
            .snapshot(&"owner/name@refs/pr/1".parse().unwrap())
            .is_some()
    );
    assert!(
        settings.cache.snapshot(&ID.parse().unwrap()).is_none(),
        "main was not asked for"
    );
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let repository = Repository::of(ID, 100_000);
    let size = repository.files["model.safetensors"].len();
    let bench = Bench::with(repository.clone(), move |request| match request {
        Request {
            elsewhere: true,
            earlier: 0,
            ..
        } => Act::Cut(150_000),
        Request {
            elsewhere: true,
            earlier: 1,
            ..
        } => Act::Stall(100_000),
        _ => Act::Honest,
    });
    let pulled = bench.pull().await.unwrap();
    let asked: Vec<_> = bench
        .hub
        .seen()
        .iter()
        .filter(|request| request.elsewhere)
        .map(range)
        .collect();
    assert_eq!(asked, [None, Some(150_000), Some(250_000)]);
    assert_eq!(
        fs::read(pulled.folder.join("model.safetensors")).unwrap(),
        repository.files["model.safetensors"]
    );
    assert!(bench.told("Retrying") && bench.told(&format!("at: {size}")));
    assert!(pulled.fetched > size as u64);
}

#[tokio::test]
async fn a_pull_that_was_given_up_goes_on_the_next_time() {
    let mut bench = Bench::with(Repository::of(ID, 100_000), |request| match request {
        Request {
            elsewhere: true,
            earlier: 0,
            ..
        } => Act::Cut(150_000),
        Request {
            elsewhere: true,
            earlier: 1..=2,
            ..
        } => Act::Cut(0),
        _ => Act::Honest,
    });
    let error = bench.pull().await.unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(
        error.to_string().contains("model.safetensors")
            && error.to_string().contains("pull it again"),
        "{error}"
    );
    assert!(
        !error.to_string().contains("hush"),
        "the signature of a redirected URL is shown: {error}"
    );
    assert!(
        bench
            .blobs()
            .iter()
            .any(|name| name.ends_with(".incomplete")),
        "{:?}",
        bench.blobs()
    );
    assert_eq!(
        bench.settings(&[]).cache.snapshots().unwrap(),
        [],
        "half a model is no model"
    );

    bench.tries = 1;
    let pulled = bench.pull().await.unwrap();
    assert!(bench.told("had: 150000"));
    assert_eq!(
        range(
            bench
                .hub
                .seen()
                .iter()
                .rfind(|request| request.elsewhere)
                .unwrap()
        ),
        Some(150_000)
    );
    assert!(pulled.fetched < 400_000 - 150_000 + 1000, "{pulled:?}");
    assert!(
        !bench
            .blobs()
            .iter()
            .any(|name| name.ends_with(".incomplete"))
    );
}

#[tokio::test]
async fn a_hub_without_ranges_sends_all_again() {
    let repository = Repository::of(ID, 100_000);
    let bench = Bench::with(repository.clone(), |request| match request {
        Request {
            elsewhere: true,
            earlier: 0,
            ..
        } => Act::Cut(150_000),
        Request {
            elsewhere: true, ..
        } => Act::Whole,
        _ => Act::Honest,
    });
    let pulled = bench.pull().await.unwrap();
    assert_eq!(
        fs::read(pulled.folder.join("model.safetensors")).unwrap(),
        repository.files["model.safetensors"]
    );
}

#[tokio::test]
async fn wrong_bytes_never_get_a_name() {
    let bench = Bench::with(Repository::of(ID, 1000), |request| match request {
        Request {
            elsewhere: true,
            earlier: 0,
            ..
        } => Act::Corrupt,
        _ => Act::Honest,
    });
    let error = bench.pull().await.unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    let sums = Repository::of(ID, 1000).files["model.safetensors"].clone();
    assert!(
        error
            .to_string()
            .contains(&format!("not {}", sha256(&sums)))
            && error.to_string().contains("was deleted"),
        "{error}"
    );
    assert!(
        !bench
            .blobs()
            .iter()
            .any(|name| name.starts_with(&sha256(&sums))),
        "{:?}",
        bench.blobs()
    );
    assert!(!bench.model().join("snapshots").exists() && !bench.model().join("refs").exists());
    bench.pull().await.unwrap();
}

#[tokio::test]
async fn a_rest_that_is_wrong_is_fetched_again() {
    let repository = Repository::of(ID, 1000);
    let sum = sha256(&repository.files["model.safetensors"]);
    let bench = Bench::with(repository, |_| Act::Honest);
    let blobs = bench.model().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{sum}.incomplete")), "something else").unwrap();
    bench.pull().await.unwrap();
    assert_eq!(
        bench
            .hub
            .seen()
            .iter()
            .filter(|request| request.elsewhere)
            .map(range)
            .collect::<Vec<_>>(),
        [Some(14), None]
    );
    fs::remove_file(blobs.join(&sum)).unwrap();
    fs::write(blobs.join(format!("{sum}.incomplete")), vec![0; 100_000]).unwrap();
    bench.pull().await.unwrap();
    assert_eq!(
        range(bench.hub.seen().last().unwrap()),
        None,
        "more than there can be is no beginning"
    );
}

#[tokio::test]
async fn a_gated_model_wants_a_token_which_only_the_hub_gets() {
    let bench = Bench::with(Repository::of(ID, 1000), |request| {
        let known = request
            .headers
            .get("authorization")
            .is_some_and(|token| token == "Bearer hf_mine");
        let refused = vec![("x-error-code", "GatedRepo".to_owned())];
        if known || request.elsewhere {
            Act::Honest
        } else {
            Act::Status(401, refused)
        }
    });
    let error = bench.pull().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let token = bench.home.path().join("token");
    for said in [
        "owner/name is gated",
        "no token was sent",
        "/owner/name",
        token.to_str().unwrap(),
    ] {
        assert!(error.to_string().contains(said), "{error}");
    }
    fs::write(&token, "hf_other\n").unwrap();
    assert!(
        bench
            .pull()
            .await
            .unwrap_err()
            .to_string()
            .contains("is not enough")
    );
    fs::write(&token, "hf_mine\n").unwrap();
    bench.pull().await.unwrap();
    let elsewhere: Vec<_> = bench
        .hub
        .seen()
        .into_iter()
        .filter(|request| request.elsewhere)
        .collect();
    assert_eq!(elsewhere.len(), 1);
    assert!(
        !elsewhere[0].headers.contains_key("authorization")
            && !elsewhere[0].headers.contains_key("referer"),
        "{elsewhere:?}"
    );
    let other = bench.home.path().join("elsewhere");
    fs::write(&other, "hf_mine").unwrap();
    fs::remove_file(&token).unwrap();
    bench
        .pull_as(
            ID,
            (None, None),
            &[("HF_TOKEN_PATH", other.to_str().unwrap())],
        )
        .await
        .unwrap();
    bench
        .pull_as(ID, (None, None), &[("HF_TOKEN", "hf_mine")])
        .await
        .unwrap();
}

#[tokio::test]
async fn refusals_say_whose_turn_it_is() {
    for (status, code, kind, said) in [
        (
            404,
            "RevisionNotFound",
            Kind::Config,
            "owner/name has no revision `main`",
        ),
        (
            404,
            "",
            Kind::Config,
            "put its config.json, safetensors and tokenizer.json into models/owner/name",
        ),
        (
            401,
            "RepoNotFound",
            Kind::Config,
            "it is not there, or it is private",
        ),
        (403, "", Kind::Config, "private or gated"),
        (400, "", Kind::External, "answered 400"),
        (
            503,
            "",
            Kind::External,
            "put its config.json, safetensors and tokenizer.json into models/owner/name",
        ),
    ] {
        let bench = Bench::with(Repository::of(ID, 1), move |_| {
            Act::Status(status, vec![("x-error-code", code.to_owned())])
        });
        let error = bench.pull().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error}");
        assert!(error.to_string().contains(said), "{status} {code}: {error}");
        assert_eq!(bench.hub.seen().len(), if status == 503 { 3 } else { 1 });
    }
}

#[tokio::test]
async fn a_busy_hub_is_asked_again() {
    let bench = Bench::with(Repository::of(ID, 1), |request| match request {
        Request {
            elsewhere: false,
            earlier: 0,
            ..
        } => Act::Status(429, vec![("retry-after", "0".to_owned())]),
        Request {
            elsewhere: false,
            earlier: 1,
            ..
        } => Act::Status(502, Vec::new()),
        _ => Act::Honest,
    });
    bench.pull().await.unwrap();
}

#[tokio::test]
async fn without_a_hub_it_says_which_folder_to_fill() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let bench = Bench::with(Repository::of(ID, 1), |_| Act::Honest);
    let mut settings = bench.settings(&[]);
    settings.endpoint = format!("http://{closed}");
    let id = ID.parse().unwrap();
    let retry = RetryPolicy {
        tries: 2,
        first_pause: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let pull = Pull {
        id: &id,
        variant: None,
        to: None,
        instead: Path::new("models/owner/name"),
        retry,
    };
    let error = pull.run(&settings, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(
        error
            .to_string()
            .contains("tokenizer.json into models/owner/name"),
        "{error}"
    );
    settings.endpoint = "hub.local".to_owned();
    assert_eq!(
        pull.run(&settings, &|_| {}).await.unwrap_err().kind(),
        Kind::Config
    );
}

#[tokio::test]
async fn offline_nothing_is_asked() {
    let bench = Bench::with(Repository::of(ID, 1), |_| Act::Honest);
    let offline = &[("HF_HUB_OFFLINE", "1")];
    let error = bench.pull_as(ID, (None, None), offline).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(
        error.to_string().contains("HF_HUB_OFFLINE")
            && error.to_string().contains("into models/owner/name"),
        "{error}"
    );
    assert!(bench.hub.seen().is_empty());
    let pulled = bench.pull().await.unwrap();
    let asked = bench.hub.seen().len();
    assert_eq!(
        bench.pull_as(ID, (None, None), offline).await.unwrap(),
        Pulled {
            fetched: 0,
            ..pulled
        }
    );
    assert_eq!(bench.hub.seen().len(), asked);
}

/// A listing is the word of a stranger: its paths and hashes become names of files.
#[tokio::test]
async fn a_listing_cannot_write_elsewhere() {
    let change = |change: fn(&mut serde_json::Value)| {
        let mut listing = Repository::of(ID, 1).listing();
        change(&mut listing);
        listing
    };
    for (listing, said) in [
        (
            change(|listing| listing["siblings"][0]["rfilename"] = "../../token.json".into()),
            "leads out",
        ),
        (
            change(|listing| listing["siblings"][0]["rfilename"] = "/tmp/config.json".into()),
            "leads out",
        ),
        (
            change(|listing| {
                listing["siblings"][0]["blobId"] =
                    "../../../../../../../../tmp/evil.json.......".into()
            }),
            "its hash",
        ),
        (
            change(|listing| listing["siblings"][2]["lfs"]["sha256"] = "../x".into()),
            "its hash",
        ),
        (
            change(|listing| listing["siblings"][0]["blobId"] = "0".repeat(64).into()),
            "its hash",
        ),
        (
            change(|listing| listing["sha"] = "../../../x".into()),
            "as the commit",
        ),
        (serde_json::json!("<html>"), "does not answer as a hub does"),
    ] {
        let bench = Bench::with(Repository::of(ID, 1), move |_| Act::Json(listing.clone()));
        let error = bench.pull().await.unwrap_err();
        assert_eq!(error.kind(), Kind::External);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(
            (bench.hub.seen().len(), names(bench.home.path())),
            (1, Vec::new()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_file_longer_than_listed_is_no_use() {
    let mut listing = Repository::of(ID, 1000).listing();
    listing["siblings"][2]["lfs"]["size"] = 100.into();
    let at = listing["siblings"]
        .as_array()
        .unwrap()
        .iter()
        .position(|file| file["rfilename"] == "model.safetensors")
        .unwrap();
    assert_eq!(at, 2);
    let bench = Bench::with(Repository::of(ID, 1000), move |request| {
        if request.path.starts_with("/api") {
            Act::Json(listing.clone())
        } else {
            Act::Honest
        }
    });
    let error = bench.pull().await.unwrap_err();
    assert!(
        error.to_string().contains("more than the 100 bytes"),
        "{error}"
    );
    let sum = sha256(&weights(1000));
    assert!(
        !bench.blobs().iter().any(|name| name.starts_with(&sum)),
        "{:?}",
        bench.blobs()
    );
}

#[tokio::test]
async fn a_variant_is_fetched_instead_of_the_plain_weights() {
    let mut repository = Repository::of(ID, 1000);
    repository
        .files
        .insert("model.fp16.safetensors".to_owned(), weights(500));
    let bench = Bench::with(repository, |_| Act::Honest);
    let pulled = bench.pull_as(ID, (Some("fp16"), None), &[]).await.unwrap();
    assert_eq!(
        names(&pulled.folder),
        ["config.json", "model.fp16.safetensors", "tokenizer.json"]
    );
    assert!(
        bench.told("OtherWeights, [\"model.safetensors\"]"),
        "{:?}",
        bench.told.lock()
    );
}

#[tokio::test]
async fn a_folder_gets_files_and_notes_and_is_mended() {
    let repository = Repository::of(ID, 1000);
    let bench = Bench::with(repository.clone(), |_| Act::Honest);
    let folder = bench.home.path().join("models/mine");
    let pull = || bench.pull_as(ID, (None, Some(&folder)), &[]);
    assert_eq!(pull().await.unwrap().folder, folder);
    assert_eq!(
        names(&folder),
        [
            ".cache",
            "config.json",
            "model.safetensors",
            "tokenizer.json"
        ]
    );
    assert!(
        folder
            .join("model.safetensors")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    let known = hashes_of(&folder).unwrap();
    assert_eq!(known.len(), 3);
    assert!(
        known
            .iter()
            .all(|(path, hash)| hash.of_file(path).unwrap() == *hash)
    );
    assert_eq!(pull().await.unwrap().fetched, 0);

    fs::write(folder.join("config.json"), r#"{"architectures": ["Y"]}"#).unwrap();
    assert_eq!(
        pull().await.unwrap().fetched,
        24,
        "a file that was changed is fetched again"
    );
    assert_eq!(
        fs::read(folder.join("config.json")).unwrap(),
        repository.files["config.json"]
    );
}

#[tokio::test]
async fn two_pulls_of_one_file_take_turns() {
    let repository = Repository::of(ID, 1000);
    let (sum, content) = (
        sha256(&repository.files["model.safetensors"]),
        repository.files["model.safetensors"].clone(),
    );
    let bench = Bench::with(repository, |_| Act::Honest);
    let lock = bench
        .home
        .path()
        .join("hub/.locks/models--owner--name")
        .join(format!("{sum}.lock"));
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let other = async {
        while !bench.told("Waiting { file: \"model.safetensors\" }") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::write(bench.model().join("blobs").join(&sum), content).unwrap();
        held.unlock().unwrap();
    };
    let (pulled, ()) = tokio::join!(bench.pull(), other);
    assert!(
        bench.hub.seen_of("model.safetensors").is_empty(),
        "the other one has fetched it"
    );
    assert!(pulled.unwrap().folder.join("model.safetensors").is_file());
}

#[tokio::test]
async fn a_full_disk_is_reported() {
    let repository = Repository::of(ID, 1000);
    let sum = sha256(&repository.files["model.safetensors"]);
    let bench = Bench::with(repository, |_| Act::Honest);
    let blobs = bench.model().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    symlink("/dev/full", blobs.join(format!("{sum}.incomplete"))).unwrap();
    let error = bench.pull().await.unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(
        error.to_string().contains("No space left on device")
            && error.to_string().contains("`HF_HOME` another disk"),
        "{error}"
    );
}

/// The hub's own word decides what is whole: a model whose index names shards that it does not have
/// is none.
#[tokio::test]
async fn a_model_without_all_its_shards_is_refused() {
    let mut repository = Repository::of(ID, 1);
    repository.files.remove("model.safetensors");
    repository
        .files
        .insert("model-00001-of-00002.safetensors".to_owned(), weights(10));
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    repository.files.insert(
        "model.safetensors.index.json".to_owned(),
        index.as_bytes().to_vec(),
    );
    let bench = Bench::with(repository, |_| Act::Honest);
    let error = bench.pull().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no model-00002-of-00002.safetensors"),
        "{error}"
    );
}
