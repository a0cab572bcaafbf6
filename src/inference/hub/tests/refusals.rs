//! What a hub refuses, and what is said without one.

use super::*;

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
