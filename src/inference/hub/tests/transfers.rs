//! Transfers that break, go on, and are checked by their hash.

use super::*;

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
