//! Where files lie: the cache that Python shares, a plain folder, and nowhere else.

use super::*;

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
