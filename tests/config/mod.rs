//! Pipeline files, good and broken: what the check says of each, to the letter.

mod kinds;

use std::path::Path;
use std::time::Duration;

use kinds::KINDS;
use opusflow::config::{Environment, Problems, ReportStyle, SourceText};
use opusflow::pipeline::effective::effective;
use opusflow::pipeline::plan::BrokersPlan;
use opusflow::pipeline::{Checked, Overrides, checked, graph};
use opusflow::stage::{Role, WhenFull};

const GOOD: [(&str, &str); 3] = [
    ("films", include_str!("good/films.yaml")),
    ("newsroom", include_str!("good/newsroom.yaml")),
    ("smallest", include_str!("good/smallest.yaml")),
];

fn environment() -> Environment {
    let set = [
        ("KAFKA_BROKERS", "one:9092,two:9092"),
        ("REDIS_PASSWORD", "hunter5"),
        ("TOP", "7"),
        ("EMPTY", ""),
        ("HF_HOME", "/nowhere"),
    ];
    set.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn check(text: &str, overrides: &Overrides) -> Result<Checked, Problems> {
    checked(
        &SourceText::new("x.yaml", text),
        KINDS,
        &environment(),
        overrides,
    )
}

fn flags(source: &[&str], set: &[&str]) -> Overrides {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Overrides {
        sources: owned(source),
        set: owned(set),
        ..Overrides::default()
    }
}

fn good(name: &str, overrides: &Overrides) -> Checked {
    let text = GOOD
        .iter()
        .find(|(other, _)| *other == name)
        .expect("a good file")
        .1;
    check(text, overrides).unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

/// One case of `broken.txt`: the good file `films.yaml` with a few lines replaced, or a whole file.
struct Case {
    title: String,
    text: String,
    expected: Vec<String>,
}

/// Reads `broken.txt`. A case opens with `# title`; `- line` is a line of `films.yaml`, the first
/// of which gives way to the `+ lines`, at its indentation (without a `-` they are put at the end);
/// `| line` makes a file of its own; `= line` is what must be said, in order.
fn cases() -> Vec<Case> {
    include_str!("broken.txt")
        .split("\n\n")
        .filter(|block| block.trim_start().starts_with("# "))
        .map(case)
        .collect()
}

fn case(block: &str) -> Case {
    let marked = |mark: &str| -> Vec<String> {
        let lines = block
            .lines()
            .filter(|line| *line == mark || line.starts_with(&format!("{mark} ")));
        lines
            .map(|line| line.get(2..).unwrap_or_default().replace("\\t", "\t"))
            .collect()
    };
    let title = marked("#").join(" ");
    let (gone, put, own) = (marked("-"), marked("+"), marked("|"));
    let mut lines: Vec<String> = if own.is_empty() {
        GOOD[0].1.lines().map(str::to_owned).collect()
    } else {
        own
    };
    let mut place = (lines.len(), 0);
    let mut from = 0;
    for (number, line) in gone.iter().enumerate() {
        let found = (from..lines.len()).find(|&at| lines[at].trim() == line.trim());
        from = found
            .unwrap_or_else(|| panic!("`{title}`: `{line}` is no line of films.yaml from here on"));
        if number == 0 {
            place = (from, lines[from].len() - lines[from].trim_start().len());
        }
        lines.remove(from);
    }
    for (number, line) in put.iter().enumerate() {
        lines.insert(
            place.0 + number,
            format!("{:indent$}{line}", "", indent = place.1),
        );
    }
    Case {
        title,
        text: lines.join("\n") + "\n",
        expected: marked("="),
    }
}

#[test]
fn broken_files_are_refused_with_their_reasons() {
    let cases = cases();
    assert!(cases.len() >= 45, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let said = check(&case.text, &Overrides::default())
            .err()
            .map(|problems| problems.lines())
            .unwrap_or_default();
        if said != case.expected || said.is_empty() {
            let lines: String = said.iter().map(|line| format!("= {line}\n")).collect();
            wrong.push_str(&format!("# {}\n{lines}\n", case.title));
        }
    }
    assert!(wrong.is_empty(), "what is said now:\n\n{wrong}");
}

#[test]
fn a_case_fails_for_one_reason_unless_it_says_several() {
    for case in cases() {
        let several = case.title.starts_with("several");
        assert_eq!(case.expected.len() > 1, several, "{}", case.title);
    }
}

#[test]
fn snippets_mark_the_place() {
    let text = GOOD[0].1.replace("threshold: 0.5", "treshold: 0.5");
    let shown = check(&text, &Overrides::default())
        .expect_err("it is misspelt")
        .render(ReportStyle::Plain);
    assert!(shown.contains("x.yaml:29:26"), "{shown}");
    assert!(
        shown.contains("with: { model: cuts, treshold: 0.5, max_length: 15s }"),
        "{shown}"
    );
    assert!(shown.contains("did you mean `threshold`?"), "{shown}");
}

#[test]
fn good_files_become_plans() {
    let plan = good("films", &Overrides::default()).plan;
    let ids: Vec<&str> = plan.stages.iter().map(|stage| &*stage.id).collect();
    assert_eq!(
        ids,
        ["films", "shots", "vectors", "captions", "topics", "out"]
    );
    let kafka = plan.kafka.as_ref().expect("it has one");
    assert_eq!(
        (&kafka.brokers, kafka.registry.as_deref()),
        (
            &BrokersPlan::Addresses("one:9092,two:9092".to_owned()),
            Some("http://127.0.0.1:8081")
        )
    );
    assert_eq!(kafka.secrets["sasl.password"].reveal(), "hunter2");
    assert_eq!(
        (
            plan.models["words"].architecture.as_str(),
            &*plan.models["words"].path
        ),
        ("LlamaForCausalLM", Path::new("tests/config/models/words"))
    );
    assert_eq!(
        (plan.threads.torch, plan.shutdown),
        (2, Duration::from_secs(30))
    );
    let [films, shots, vectors, captions, topics, out] = &plan.stages[..] else {
        panic!("six stages")
    };
    assert_eq!(
        (films.kind.name, films.dead_letter, films.required),
        ("file", None, false)
    );
    let queue = shots.inputs[0].queue;
    assert_eq!(
        (queue.frames, queue.bytes, queue.when_full, queue.max_age),
        (512, 16 << 20, WhenFull::Block, None)
    );
    assert_eq!(
        (
            shots.concurrency,
            vectors.concurrency,
            shots.inputs[0].view.as_deref()
        ),
        (1, 8, Some("cuts"))
    );
    let join = captions.join.as_ref().expect("it joins");
    assert_eq!(
        (join.per, &join.collect[..], join.wait),
        (0, &[1][..], None)
    );
    assert_eq!(
        (captions.dead_letter, out.dead_letter),
        (Some(4), Some(4)),
        "at `topics`"
    );
    assert_eq!(
        (
            topics.dead_letter,
            topics.required,
            topics.timeout,
            topics.retry.attempts
        ),
        (Some(4), true, None, 3)
    );
    assert_eq!(
        (out.kind.role().as_str(), &**out.params.text("path")),
        ("sink", "./out")
    );
}

#[test]
fn what_a_stage_works_on_follows_its_model() {
    let told = |inputs: &str| {
        let stage =
            format!("  - {{ id: told, kind: tell, inputs: {inputs}, with: {{ model: tags }} }}");
        GOOD[0].1.replace(
            "  - id: topics",
            &format!("{stage}\n  - {{ id: album, kind: file, inputs: [told] }}\n  - id: topics"),
        )
    };
    for inputs in [
        "[films.frames]",
        "[shots, films.frames], join: { per: shots }",
    ] {
        check(&told(inputs), &Overrides::default())
            .unwrap_or_else(|problems| panic!("{inputs}: {problems}"));
    }
}

#[test]
fn live_streams_drop_what_is_old() {
    let plan = good("newsroom", &Overrides::default()).plan;
    let stage = |id: &str| {
        plan.stages
            .iter()
            .find(|stage| *stage.id == *id)
            .expect("it is there")
    };
    let queue = stage("vectors").inputs[0].queue;
    assert_eq!(
        (queue.when_full, queue.max_age),
        (WhenFull::DropOldest, Some(Duration::from_secs(5)))
    );
    assert_eq!(
        (
            stage("topics").inputs[0].queue.when_full,
            stage("topics").inputs[0].queue.max_age
        ),
        (WhenFull::DropOldest, None)
    );
    assert_eq!(
        (
            stage("stills").inputs[0].queue.when_full,
            stage("stills").inputs[0].queue.max_age
        ),
        (WhenFull::DropNewest, None)
    );
    assert_eq!(
        stage("captions").join.as_ref().and_then(|join| join.wait),
        Some(Duration::from_secs(5))
    );
    assert_eq!(
        (stage("latest").required, stage("stills").dead_letter),
        (false, None)
    );
    let letters = stage("captions").dead_letter.expect("it has a sink");
    assert_eq!(&*plan.stages[letters].id, "topics");
    assert_eq!(
        plan.cache.redis.as_ref().map(|redis| redis.reveal()),
        Some("redis://:hunter5@127.0.0.1:6379/0")
    );
    assert_eq!(plan.telemetry.metrics, "127.0.0.1:9100".parse().ok());
    assert_eq!(
        &**stage("captions").params.text("prompt"),
        "Say \"{tags}\" for ${USD}: a line"
    );
    assert!(plan.threads.torch >= 1);
}

#[test]
fn only_topics_that_a_kafka_sink_can_fill_are_asked_for() {
    use opusflow::packet::PayloadKind::{Embedding, Event, Frame, Picture, Segment};
    let found = |name: &str, set: &[&str]| {
        let found = good(name, &flags(&[], set)).plan.kafka_records();
        (Vec::from_iter(found.records), Vec::from_iter(found.letters))
    };
    let two = [
        "stages.topics.inputs=[vectors, shots]",
        "stages.topics.dead_letter=none",
        "stages.captions.dead_letter=none",
    ];
    let quiet = [
        "stages.out.dead_letter=none",
        "stages.vectors.dead_letter=none",
        "stages.shots.dead_letter=none",
    ];
    assert_eq!(
        found("films", &[&two[..], &quiet].concat()),
        (vec![Segment, Embedding, Event], vec![]),
        "no frame, no caption, no letter"
    );
    let (_, letters) = found(
        "films",
        &[&two[..], &["stages.out.dead_letter=none"]].concat(),
    );
    assert_eq!(letters, [Frame], "what `vectors` and `shots` read");
    let (records, letters) = found(
        "newsroom",
        &[
            "stages.topics.inputs=[stills]",
            "stages.watch.inputs=[captions]",
        ],
    );
    assert_eq!(records, [Picture, Event]);
    assert!(
        letters.contains(&Picture) && letters.contains(&Event),
        "the sink's own letters too: {letters:?}"
    );
}

/// shots and, beside it, windows of 10 s; a join per shot, and one per picture of it.
#[test]
fn a_side_that_looks_ahead_finds_room_on_the_driving_side() {
    let text = "version: 1\nname: x\nmodel_dir: tests/config/models\nmodels: { cuts: { path: cuts } }\nstages:
  - { id: films, kind: file, with: { paths: tests/config/film.mp4, views: { a: { fps: 25, size: 48x27 } } } }
  - { id: shots, kind: shots, inputs: [films.a], with: { model: cuts } }
  - { id: windows, kind: windows, inputs: [films.a] }
  - { id: both, kind: both, inputs: [shots, { from: windows, queue: { frames: 1000 } }], join: { per: shots } }
  - { id: again, kind: stills, inputs: [shots, { from: films.a, queue: { frames: 1000 } }], join: { per: shots } }
  - { id: out, kind: file, inputs: [both, again] }
";
    let checked =
        check(text, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let room = |id: &str| {
        checked
            .plan
            .stages
            .iter()
            .find(|stage| *stage.id == *id)
            .map(|stage| stage.inputs[0].queue.frames)
    };
    // Shots leave 2 s after their end, windows begin to pass 10 s after theirs: a shot a frame may
    // wait for 8 s.
    assert_eq!((room("both"), room("again")), (Some(8 * 25 + 2), Some(64)));
}

#[test]
fn the_effective_file_says_the_same_in_full() {
    for (name, _) in GOOD {
        let first = good(name, &Overrides::default());
        let text = effective(&first);
        let again = check(&text, &Overrides::default())
            .unwrap_or_else(|problems| panic!("{name}: {problems}\n{text}"));
        assert_eq!(
            first.plan.config_hash,
            again.plan.config_hash,
            "{name}:\n{text}\n{}",
            effective(&again)
        );
        for (one, other) in first.plan.stages.iter().zip(&again.plan.stages) {
            assert_eq!(
                (&one.id, one.parameters, &one.inputs.len()),
                (&other.id, other.parameters, &other.inputs.len())
            );
        }
        assert!(!text.contains("hunter"), "{text}");
        assert!(!format!("{:?}", first.plan).contains("hunter2\")"));
    }
}

#[test]
fn the_effective_file_says_where_values_come_from() {
    let checked = good(
        "films",
        &flags(
            &[],
            &["stages.captions.with.prompt=Say: {tags}", "shutdown=1m"],
        ),
    );
    let text = effective(&checked);
    let comment = |start: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(start))
            .unwrap_or_else(|| panic!("no `{start}` in\n{text}"));
        line.split("  # ").nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(
        comment("brokers: \"one:9092,two:9092\""),
        "${KAFKA_BROKERS}"
    );
    assert_eq!(comment("in_flight: 32MiB"), "default");
    assert_eq!(comment("namespace: media"), "line 5");
    assert_eq!(comment("shutdown: 1m"), "command line");
    assert_eq!(comment("prompt: \"Say: {tags}\""), "command line");
    assert_eq!(comment("sasl.password: \"[redacted]\""), "line 9");
    assert_eq!(comment("when_full: block"), "default");
    assert_eq!(comment("dead_letter: topics"), "default");
}

#[test]
fn profiles_set_what_an_entry_leaves_out_and_say_so() {
    use opusflow::inference::NetworkOptions;
    use opusflow::models::attention::AttentionKind;
    use opusflow::tensor::{DeviceChoice, Precision, PrecisionChoice};
    let small = "models.words.small=./tests/config/models/words";
    let set = [
        "profile=memory",
        "models.cuts.profile=throughput",
        "models.tags.device=[cuda:0, cuda:1]",
        "models.words.vae.tiling=false",
        small,
    ];
    let checked = good("films", &flags(&[], &set));
    let model = |name: &str| checked.plan.models[name].clone();
    let (cuts, tags, words) = (model("cuts"), model("tags"), model("words"));
    assert_eq!(
        (cuts.max_size, cuts.queue, cuts.tf32, cuts.max_wait),
        (None, 256, true, Duration::from_millis(20))
    );
    assert_eq!(
        (cuts.precision, cuts.options),
        (PrecisionChoice::Auto, NetworkOptions::default())
    );
    // What the file says stands: 16 in a batch, though the profile would have 2, and `precision:
    // auto`.
    assert_eq!(
        (tags.max_size, tags.queue, tags.precision),
        (Some(16), 8, PrecisionChoice::Auto)
    );
    assert_eq!(tags.devices, [DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)]);
    assert_eq!(
        (words.max_size, words.precision),
        (Some(2), PrecisionChoice::Fixed(Precision::BF16))
    );
    let sliced = NetworkOptions {
        attention: AttentionKind::Sliced,
        vae_slicing: true,
        offload: true,
        ..NetworkOptions::default()
    };
    assert_eq!(words.options, sliced);
    assert_eq!(
        &*words.path,
        Path::new("tests/config/models/words"),
        "the profile `memory` takes no smaller model"
    );
    let text = effective(&checked);
    let said = |entry: &str, key: &str| {
        let entry = text
            .lines()
            .skip_while(|line| line.trim() != format!("{entry}:"));
        let line = entry
            .clone()
            .find(|line| line.trim_start().starts_with(key))
            .unwrap_or_else(|| panic!("no `{key}` in\n{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        said("cuts", "max_size:"),
        "max_size: auto # profile throughput"
    );
    assert_eq!(said("tags", "max_size:"), "max_size: 16 # line 16");
    assert_eq!(said("tags", "queue:"), "queue: 8 # profile memory");
    assert_eq!(said("words", "tiling:"), "tiling: false # command line");
    assert_eq!(said("words", "slicing:"), "slicing: true # profile memory");
    assert_eq!(
        said("words", "attention:"),
        "attention: sliced # profile memory"
    );
    assert_eq!(said("words", "tf32:"), "tf32: false # default");
    let again =
        check(&text, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(checked.plan.config_hash, again.plan.config_hash);
}

#[test]
fn small_models_take_the_place_of_those_that_have_one() {
    let set = [
        "profile=small_models",
        "models.words.small=./tests/config/models/words",
        "models.tags.small=cuts",
        "models.tags.size=full",
    ];
    let checked = good("films", &flags(&[], &set));
    let path = |name: &str| {
        checked.plan.models[name]
            .path
            .to_string_lossy()
            .into_owned()
    };
    assert_eq!(
        path("words"),
        "./tests/config/models/words",
        "the small one, though it is not in model_dir"
    );
    assert_eq!(
        (path("tags"), path("cuts")),
        (
            "tests/config/models/tags".to_owned(),
            "tests/config/models/cuts".to_owned()
        )
    );
}

#[test]
fn the_hash_follows_what_is_said_and_nothing_else() {
    let hash = |text: &str| {
        check(text, &Overrides::default())
            .unwrap_or_else(|problems| panic!("{problems}"))
            .plan
            .config_hash
    };
    let text = GOOD[0].1;
    assert_eq!(
        hash(text),
        hash(&format!(
            "# a comment\n{}",
            text.replace("ttl: 1h", "ttl: 60m")
        ))
    );
    assert_eq!(
        hash(text),
        hash(&text.replace("{ file: tests/config/secret }", "another-secret"))
    );
    assert_ne!(
        hash(text),
        hash(&text.replace("max_length: 15s", "max_length: 14s"))
    );
    assert_ne!(
        hash(text),
        hash(&text.replace("late: partial", "late: drop"))
    );
    let parameters =
        |set: &[&str], at: usize| good("films", &flags(&[], set)).plan.stages[at].parameters;
    let prompt = ["stages.captions.with.prompt=Another {tags}"];
    assert_ne!(parameters(&[], 3), parameters(&prompt, 3));
    assert_eq!(parameters(&[], 2), parameters(&prompt, 2));
}

#[test]
fn flags_stand_in_for_the_source() {
    let film = good("newsroom", &flags(&["tests/config/film.mp4"], &[])).plan;
    let source = &film.stages[0];
    assert_eq!(
        (
            source.kind.name,
            source.params.list("paths").len(),
            source.params.map("views").len()
        ),
        ("file", 1, 3)
    );
    assert_eq!(film.stages[2].inputs[0].queue.when_full, WhenFull::Block);
    let live = good(
        "films",
        &flags(
            &["rtmp://127.0.0.1/live/two"],
            &["stages.captions.inputs=[shots, {from: vectors, queue: {frames: 99}}]"],
        ),
    )
    .plan;
    let stream = live.stages[0].params.list("streams")[0]
        .as_object()
        .expect("a stream");
    assert_eq!(
        (live.stages[0].kind.name, &**stream.text("url")),
        ("live", "rtmp://127.0.0.1/live/two")
    );
}

#[test]
fn a_playlist_that_is_complete_stands_in_as_a_film() {
    let url = "http://127.0.0.1/film.m3u8";
    let kind = |films: &[&str]| {
        let films = films.iter().map(|url| (*url).to_owned()).collect();
        let source = &good(
            "newsroom",
            &Overrides {
                films,
                ..flags(&[url], &[])
            },
        )
        .plan
        .stages[0];
        (
            source.kind.name,
            source.params.opt_list("paths").map(<[_]>::len),
        )
    };
    assert_eq!(
        kind(&[]),
        ("live", None),
        "one that grows, or does not answer"
    );
    assert_eq!(kind(&[url]), ("file", Some(1)));
    let mixed = Overrides {
        films: vec![url.to_owned()],
        ..flags(&[url, "http://127.0.0.1/other.m3u8"], &[])
    };
    assert!(
        check(GOOD[0].1, &mixed).is_err(),
        "a film and a live stream"
    );
}

#[test]
fn flags_that_lead_nowhere_are_said_at_the_flag() {
    let said = |source: &[&str], set: &[&str]| {
        check(GOOD[0].1, &flags(source, set))
            .expect_err("it is wrong")
            .lines()
    };
    assert_eq!(
        said(
            &[],
            &[
                "stages.shots.with.treshold=1",
                "stages.captoins.with.prompt=x",
                "cache.ttl=5",
                "nothing"
            ]
        ),
        [
            "--set:1:19: unknown key `treshold` (did you mean `threshold`?)",
            "--set:1:8: nothing here has the id `captoins` (did you mean `captions`?)",
            "--set:1:11: `ttl` needs a unit, not `5` alone (write `5s` or `5ms`)",
            "--set:1:1: `--set` takes PATH=VALUE (for example `--set \
             stages.captions.with.prompt=...`)",
        ]
    );
    assert_eq!(
        said(&["nowhere.mp4"], &[]),
        [
            "--source:1:1: there is no file `nowhere.mp4` (relative paths start at the current \
             directory)"
        ]
    );
    assert_eq!(
        said(&["rtmp://h/x", "film.mp4"], &[]),
        ["--source:1:1: files and live streams cannot stand in for one source together"]
    );
}

#[test]
fn graphs_show_stages_views_and_queues() {
    let plan = good("films", &Overrides::default()).plan;
    let mermaid = graph::mermaid(&plan);
    assert!(
        mermaid.starts_with("flowchart LR\n  n0([\"films<br/>(file)\"])\n"),
        "{mermaid}"
    );
    assert!(
        mermaid.contains("  n0 -->|\"cuts<br/>512 packets, 16MiB, block\"| n1\n"),
        "{mermaid}"
    );
    assert!(
        mermaid.contains("  n2 -->|\"collect<br/>64 packets, 64MiB, block\"| n3\n"),
        "{mermaid}"
    );
    let dot = graph::dot(&plan);
    assert!(
        dot.starts_with("digraph \"films\" {") && dot.ends_with("}\n"),
        "{dot}"
    );
    assert!(
        dot.contains("  n0 -> n2 [label=\"frames\\n64 packets, 64MiB, block\"];"),
        "{dot}"
    );
}

#[test]
fn every_kind_there_is_fits_its_own_shape_and_schema() {
    // A default that does not fit its own type panics here.
    let text = GOOD[2].1;
    for kind in opusflow::stages::KINDS {
        let inputs = if kind.role() == Role::Source {
            ""
        } else {
            ", \"inputs\": []"
        };
        let broken = text.replace(
            "\"kind\": \"ticks\"",
            &format!("\"kind\": \"{}\"{inputs}", kind.name),
        );
        let _ = checked(
            &SourceText::new("x", &broken),
            opusflow::stages::KINDS,
            &environment(),
            &Overrides::default(),
        );
    }
    let schema = opusflow::pipeline::grammar::json_schema(opusflow::stages::KINDS);
    let definitions = schema["$defs"].as_object().expect("it has definitions");
    let mut references = Vec::new();
    collect(&schema, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let name = reference
            .strip_prefix("#/$defs/")
            .unwrap_or_else(|| panic!("{reference}"));
        assert!(definitions.contains_key(name), "{reference}");
    }
}

fn collect(json: &serde_json::Value, references: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(map) => {
            references.extend(
                map.get("$ref")
                    .and_then(|reference| reference.as_str())
                    .map(str::to_owned),
            );
            map.values().for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
