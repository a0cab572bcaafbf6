//! The demo's own pipeline: everything that it makes of a film that talks lies on its topic and in
//! its files, thumbnails too.

use serde_json::Value;

use super::read_topics;
use crate::support::live::{From, Live};
use crate::support::{Place, film, records, root};

#[test]
fn demo_puts_all_that_it_makes_onto_topics() {
    let place = Place::new();
    film::talking(&place.path("film.mkv"));
    let painter = format!(
        "models.paint.path={}",
        root().join("ops/models/starter-diffusion").display()
    );
    let pipeline = root().join("pipelines/demo.yaml").display().to_string();
    let mut command = place.opusflow([
        "run", "--quiet", &pipeline, "--source", "film.mkv", "--set", &painter, "--linger", "60s",
    ]);
    command.env_remove("REDIS_URL");
    let live = Live::spawn(command);
    live.line(From::Stdout, |line| line.starts_with("streams: "));
    let brokers = std::fs::read_to_string(place.path("out/broker.address"))
        .unwrap()
        .trim()
        .to_owned();
    let topics = read_topics("avro", &brokers, "media");
    live.signal("TERM");
    let run = live.wait().ended(0);
    let (_, files) = records::of_files(&place.path("out/demo"));

    for kind in [
        "captions",
        "embeddings",
        "events",
        "pictures",
        "segments",
        "transcripts",
    ] {
        let read = records::by_id(
            topics[&format!("media.{kind}.v1")]
                .iter()
                .map(|message| &message.value),
        );
        records::same(&read, &files[kind], kind);
    }
    for view in ["cuts", "frames", "sound", "stills"] {
        let balance = run.balance(view);
        assert!(
            balance.ingested > 0 && balance.dropped + balance.dead_lettered == 0,
            "{view}: {balance:?}"
        );
    }

    let ids = |value: &Value| {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(files["segments"].len() >= 3, "two cuts");
    assert!(files["transcripts"].values().any(|said| {
        said["words"]
            .as_array()
            .is_some_and(|words| words.len() > 2)
    }));
    let (thumbnails, keyframes): (Vec<&Value>, Vec<&Value>) = files["pictures"]
        .values()
        .partition(|picture| picture["role"] == "thumbnail");
    assert_eq!(
        [thumbnails.len(), keyframes.len(), files["captions"].len()],
        [files["segments"].len(); 3],
        "one for each shot"
    );
    for thumbnail in thumbnails {
        assert_eq!(
            (thumbnail["width"].as_u64(), thumbnail["height"].as_u64()),
            (Some(128), Some(128)),
            "{thumbnail}"
        );
        let parents = ids(&thumbnail["meta"]["parents"]);
        assert!(
            files["captions"].contains_key(&parents[0])
                && files["pictures"].contains_key(&parents[1]),
            "a caption and a keyframe: {thumbnail}"
        );
        assert_eq!(
            files["captions"][&parents[0]]["meta"]["start"], thumbnail["meta"]["start"],
            "{thumbnail}"
        );
    }
}
