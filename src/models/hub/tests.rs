//! Ids, hashes, the cache's layout and the environment, against what huggingface_hub makes of the
//! same.

use std::path::PathBuf;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn id(text: &str) -> HubId {
    text.parse().unwrap()
}

#[test]
fn ids_are_what_huggingface_hub_takes() {
    let one = id("stabilityai/sd-turbo@refs/pr/4");
    assert_eq!(
        (one.repository(), one.revision(), one.to_string().as_str()),
        (
            "stabilityai/sd-turbo",
            "refs/pr/4",
            "stabilityai/sd-turbo@refs/pr/4"
        )
    );
    assert_eq!(
        (
            id("gpt2").revision(),
            id("gpt2").to_string().as_str(),
            id("gpt2").has_owner()
        ),
        ("main", "gpt2", false)
    );
    for wrong in [
        "", "a/b/c", "../x", "a/..", "/a/b", "a/", ".a/b", "a/b-", "a--b/c", "a/b c", "a/b.git",
        "a\\b", "a/b@", "a/b@../x", "a/b@/x", "a/b@x//y", "a/b@.x", "a/b@x y",
    ] {
        assert_eq!(
            HubId::from_str(wrong).unwrap_err().kind(),
            crate::error::Kind::Config,
            "{wrong}"
        );
    }
}

/// The hashes that Python's hashlib and git give.
#[test]
fn hashes_are_those_of_git_and_of_large_file_storage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello");
    fs::write(&file, "hello world\n").unwrap();
    let git = FileHash::parse("3b18e512dba79e4c8300dd08aeb37f8e728b8dad").unwrap();
    let sha256 =
        FileHash::parse("a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447")
            .unwrap();
    assert_eq!(
        (git.of_file(&file).unwrap(), sha256.of_file(&file).unwrap()),
        (git.clone(), sha256)
    );
    let mut pieces = git.hashing(12);
    pieces.update(b"hello ");
    pieces.update(b"world\n");
    assert_eq!(pieces.finish(), git);
    for wrong in [
        "",
        "3b18",
        "../../../../../../../../../../etc/passwd/",
        "3B18E512DBA79E4C8300DD08AEB37F8E728B8DAD",
    ] {
        assert!(FileHash::parse(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn a_linked_snapshot_is_found_by_its_revision_and_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let cache = HubCache::at(folder.path());
    let (main, tagged) = (id("owner/name"), id("owner/name@refs/pr/1"));
    assert_eq!(
        (cache.snapshot(&main), cache.snapshots().unwrap()),
        (None, Vec::new())
    );

    let hash = FileHash::parse("3b18e512dba79e4c8300dd08aeb37f8e728b8dad").unwrap();
    let blob = cache.blob(&main, &hash);
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, "hello world\n").unwrap();
    for file in ["config.json", "unet/config.json"] {
        let link = cache.link(&main, COMMIT, (file, &hash)).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "hello world\n");
        assert!(
            fs::read_link(&link).unwrap().is_relative(),
            "the cache may be moved"
        );
        assert_eq!(cache.link(&main, COMMIT, (file, &hash)).unwrap(), link);
    }
    assert_eq!(cache.snapshot(&main), None, "no revision leads there yet");
    cache.refer(&tagged, COMMIT).unwrap();
    cache.refer(&main, COMMIT).unwrap();
    let snapshot = folder
        .path()
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    for found in [&main, &tagged, &id(&format!("owner/name@{COMMIT}"))] {
        assert_eq!(cache.snapshot(found).as_ref(), Some(&snapshot), "{found}");
    }
    assert_eq!(cache.snapshot(&id("owner/name@v2")), None);
    assert_eq!(repository_of(&snapshot).as_deref(), Some("owner/name"));
    assert_eq!(repository_of(Path::new("/models/resnet-18")), None);
    let refs = vec!["main".to_owned(), "refs/pr/1".to_owned()];
    assert_eq!(
        cache.snapshots().unwrap(),
        [Snapshot {
            repository: "owner/name".to_owned(),
            commit: COMMIT.to_owned(),
            refs,
            path: snapshot
        }]
    );
}

/// A reference that somebody put there cannot lead out of the cache.
#[test]
fn a_reference_is_a_commit_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let refs = folder.path().join("models--owner--name/refs");
    fs::create_dir_all(&refs).unwrap();
    fs::create_dir_all(folder.path().join("models--owner--name/snapshots")).unwrap();
    fs::write(refs.join("main"), "../..").unwrap();
    assert_eq!(
        HubCache::at(folder.path()).snapshot(&id("owner/name")),
        None
    );
}

fn settings(set: &[(&str, &str)]) -> HubSettings {
    HubSettings::of(|name| {
        set.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

/// What huggingface_hub 2.4 makes of the same variables.
#[test]
fn places_follow_the_variables() {
    for (set, cache, token) in [
        (
            &[("HOME", "/h")][..],
            "/h/.cache/huggingface/hub",
            "/h/.cache/huggingface/token",
        ),
        (
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
            "/x/huggingface/hub",
            "/x/huggingface/token",
        ),
        (
            &[("HOME", "/h"), ("HF_HOME", "~/hf")],
            "/h/hf/hub",
            "/h/hf/token",
        ),
        (
            &[
                ("HF_HOME", "/d/${USER}/$KIND/$GONE"),
                ("USER", "me"),
                ("KIND", "k"),
            ],
            "/d/me/k/$GONE/hub",
            "/d/me/k/$GONE/token",
        ),
        (
            &[
                ("HOME", "/h"),
                ("HF_HOME", "/a"),
                ("HF_HUB_CACHE", "/b"),
                ("HF_TOKEN_PATH", "/run/t"),
            ],
            "/b",
            "/run/t",
        ),
        (
            &[("HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")],
            "/old",
            "/h/.cache/huggingface/token",
        ),
    ] {
        let settings = settings(set);
        assert_eq!(
            (settings.cache.path(), &settings.token_file),
            (Path::new(cache), &PathBuf::from(token)),
            "{set:?}"
        );
    }
    assert!(HubSettings::of(|_| None).is_err());
    let defaults = settings(&[("HOME", "/h")]);
    assert_eq!(
        (defaults.endpoint.as_str(), defaults.offline),
        ("https://huggingface.co", false)
    );
    assert_eq!(
        settings(&[("HOME", "/h"), ("HF_ENDPOINT", "http://mirror/hub/")]).endpoint,
        "http://mirror/hub"
    );
    for (value, offline) in [
        ("1", true),
        ("yes", true),
        ("True", true),
        ("0", false),
        ("", false),
    ] {
        assert_eq!(
            settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).offline,
            offline,
            "{value}"
        );
    }
}

#[test]
fn token_comes_from_the_environment_or_its_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    assert_eq!(settings(&[("HF_HOME", home)]).token().unwrap(), None);
    fs::write(folder.path().join("token"), "hf_filed\n").unwrap();
    assert_eq!(
        settings(&[("HF_HOME", home)]).token().unwrap().as_deref(),
        Some("hf_filed")
    );
    let both = settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_set")]);
    assert_eq!(both.token().unwrap().as_deref(), Some("hf_set"));
    assert!(!format!("{both:?}").contains("hf_set"), "{both:?}");
    fs::write(folder.path().join("token"), "two\nlines").unwrap();
    let error = settings(&[("HF_HOME", home)])
        .token()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/token holds is not a token") && !error.contains("lines"),
        "{error}"
    );
    fs::write(folder.path().join("token"), "  \n").unwrap();
    assert_eq!(settings(&[("HF_HOME", home)]).token().unwrap(), None);
}
