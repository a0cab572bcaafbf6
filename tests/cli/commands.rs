//! The commands that run nothing: they check, draw, list and register.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::live::{Live, Run};
use crate::support::pipeline::{Demo, generated};
use crate::support::{Place, env, film, output, python, records, root, unique};

const SINK: &str =
    "  - { id: files, kind: file, inputs: [thinned], with: { path: ./out, formats: [jsonl] } }\n";

/// The pipelines that come with the project.
fn shipped() -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(root().join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    paths.sort();
    assert!(paths.len() >= 2, "{paths:?}");
    paths
}

/// A command at the root of the repository, with the variables that the shipped pipelines want.
fn at_root(arguments: &[&str]) -> Run {
    let mut command: Command = Place::new().opusflow(arguments);
    command.current_dir(root());
    for name in ["KAFKA_BROKERS", "REGISTRY_URL"] {
        command.env(name, env(name));
    }
    command
        .env("RTMP_URL", "rtmp://127.0.0.1/live/film")
        .env("OPUSFLOW_FILM", env("OPUSFLOW_TEST_FILM"));
    Live::spawn(command).wait()
}

#[test]
fn shipped_pipelines_are_valid_and_every_mistake_is_told() {
    let paths: Vec<String> = shipped()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let mut arguments = vec!["validate"];
    arguments.extend(paths.iter().map(String::as_str));
    at_root(&arguments).ended(0);

    let place = Place::new();
    let text = generated("", "frames: 5", SINK)
        .replace("every: 2", "evry: 2")
        .replace("[bars.all]", "[bars.al]");
    let broken = place.write("broken.yaml", text);
    let run = place.call(["validate", broken.to_str().unwrap()]).ended(2);
    assert!(
        run.stderr.contains("evry") && run.stderr.contains("bars.al"),
        "both at once:\n{}",
        run.stderr
    );
    assert!(run.stderr.contains("broken.yaml:"), "{}", run.stderr);
}

#[test]
fn graph_draws_stages_and_edges() {
    let demo = root().join("pipelines/demo.yaml").display().to_string();
    let mermaid = at_root(&["graph", &demo]).ended(0).stdout;
    let dot = at_root(&["graph", "--format", "dot", &demo])
        .ended(0)
        .stdout;
    assert!(
        mermaid.starts_with("flowchart") && dot.starts_with("digraph"),
        "{mermaid}{dot}"
    );
    for stage in [
        "films",
        "shots",
        "keyframes",
        "vectors",
        "captions",
        "topics",
        "files",
        "screen",
    ] {
        assert!(
            mermaid.contains(stage) && dot.contains(stage),
            "{stage} is not in\n{mermaid}{dot}"
        );
    }
    assert!(
        mermaid.matches("-->").count() >= 14 && dot.matches("->").count() >= 14,
        "{mermaid}{dot}"
    );
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
}

/// The file with every default filled in is a file that says the same.
#[test]
fn effective_file_has_the_same_hash() {
    let place = Place::new();
    let pipeline = place.write("pipeline.yaml", generated("", "frames: 6", SINK));
    let effective = place
        .call(["graph", "--effective", pipeline.to_str().unwrap()])
        .ended(0)
        .stdout;
    assert!(
        effective.contains("# default") && effective.contains("# line "),
        "{effective}"
    );
    let again = place.write("effective.yaml", &effective);
    let hash = |pipeline| {
        place.run(pipeline, &[]).ended(0);
        let (_, files) = records::of_files(&place.path("out"));
        assert_eq!(files["frames"].len(), 3);
        files["frames"].values().next().unwrap()["meta"]["config_hash"].clone()
    };
    assert_eq!(hash(&pipeline), hash(&again));

    let top = "cache: { redis: \"redis://user:hunter2@127.0.0.1:1\" }\nobjects: { \
               store: \"file:./objects\" }";
    let demo = place.write(
        "demo.yaml",
        Demo {
            top,
            film: film::short(),
            sinks: "",
        }
        .text(),
    );
    let effective = place
        .call(["graph", "--effective", demo.to_str().unwrap()])
        .ended(0)
        .stdout;
    assert!(!effective.contains("hunter2"), "{effective}");
    let again = place.write("effective-demo.yaml", &effective);
    let bare = |text: &str| {
        text.lines()
            .map(|line| line.split("  # ").next().unwrap().trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    let twice = place
        .call(["graph", "--effective", again.to_str().unwrap()])
        .ended(0)
        .stdout;
    assert_eq!(bare(&twice), bare(&effective));
}

#[test]
fn stages_are_listed_with_their_parameters() {
    let all = at_root(&["stages"]).ended(0).stdout;
    for kind in [
        "file", "live", "test", "caption", "encode", "keyframe", "sample", "shots", "console",
        "discard", "kafka", "redis",
    ] {
        assert!(
            all.lines()
                .any(|line| line.starts_with(&format!("{kind}  ("))),
            "{kind}"
        );
    }
    let caption = at_root(&["stages", "caption"]).ended(0).stdout;
    assert!(
        caption.contains("prompt: ")
            && caption.contains("default ")
            && !caption.contains("encode  ("),
        "{caption}"
    );
    assert!(
        at_root(&["stages", "captoin"])
            .ended(2)
            .stderr
            .contains("captoin")
    );
}

/// What editors use: it takes every shipped pipeline and refuses a misspelt key.
#[test]
fn json_schema_takes_the_shipped_pipelines_and_refuses_mistakes() {
    let place = Place::new();
    let schema = place.write(
        "schema.json",
        at_root(&["config", "schema"]).ended(0).stdout,
    );
    let mut files = shipped();
    files.push(place.write("good.yaml", generated("", "frames: 5", SINK)));
    for (name, (from, to)) in [
        ("key.yaml", ("with: { every: 2 }", "with: { evry: 2 }")),
        ("kind.yaml", ("kind: sample", "kind: simple")),
        ("type.yaml", ("version: 1", "version: one")),
        ("missing.yaml", ("name: generated\n", "")),
    ] {
        let text = generated("", "frames: 5", SINK);
        assert!(text.contains(from));
        files.push(place.write(name, text.replacen(from, to, 1)));
    }
    let mut arguments = vec![schema];
    arguments.extend(files);
    for verdict in python("tests/cli/schema_accepts.py", arguments) {
        let (file, problems) = (
            verdict["file"].as_str().unwrap(),
            verdict["problems"].as_array().unwrap(),
        );
        let bad = ["key.yaml", "kind.yaml", "type.yaml", "missing.yaml"]
            .iter()
            .any(|name| file.ends_with(name));
        assert_eq!(problems.is_empty(), !bad, "{file}: {problems:?}");
    }
}

#[test]
fn schemas_are_listed_pushed_and_checked() {
    let records = [
        "frames",
        "segments",
        "embeddings",
        "captions",
        "pictures",
        "events",
        "dead_letters",
    ];
    let listed = at_root(&["schemas", "list"]).ended(0).stdout;
    for record in records {
        assert!(
            listed.lines().any(|line| line.starts_with(record)),
            "{listed}"
        );
        let shown: Value =
            serde_json::from_str(&at_root(&["schemas", "show", record]).ended(0).stdout).unwrap();
        let file: Value = serde_json::from_str(
            &std::fs::read_to_string(root().join(format!("schemas/{record}.avsc"))).unwrap(),
        )
        .unwrap();
        assert_eq!(shown, file);
    }
    at_root(&["schemas", "show", "films"]).ended(2);

    let (registry, namespace) = (env("REGISTRY_URL"), unique("e2e"));
    let call = |command: &str| {
        at_root(&[
            "schemas",
            command,
            "--registry",
            &registry,
            "--namespace",
            &namespace,
        ])
    };
    let before = call("check").ended(0).stdout;
    assert!(
        before.lines().count() >= 6 && before.lines().all(|line| line.ends_with(" new")),
        "{before}"
    );
    let pushed = call("push").ended(0).stdout;
    let again = call("push").ended(0).stdout;
    assert_eq!(pushed, again, "a second push registers nothing new");
    let subject = format!("{namespace}.captions.v1-value");
    assert!(
        pushed
            .lines()
            .any(|line| line.starts_with(&subject) && line.contains(" id ")),
        "{pushed}"
    );
    let after = call("check").ended(0).stdout;
    assert!(
        after.lines().all(|line| line.ends_with(" compatible")),
        "{after}"
    );

    // The registry's own answer, by curl: the subject's schema is ours.
    let mut curl = Command::new("curl");
    curl.args([
        "-fsS",
        &format!("{registry}/subjects/{subject}/versions/latest"),
    ]);
    let latest: Value = serde_json::from_str(&output(curl)).unwrap();
    let schema: Value = serde_json::from_str(latest["schema"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&schema["name"], &schema["namespace"]),
        (&Value::from("Caption"), &Value::from("dev.opusflow.v1"))
    );

    // A schema of someone else's under our subject is a reason to stop.
    let strange = format!("{namespace}x");
    let body = r#"{"schema": "{\"type\":\"record\",\"name\":\"Caption\",\"namespace\":\"dev.opusflow.v1\",\"fields\":[{\"name\":\"text\",\"type\":\"int\"}]}"}"#;
    let mut curl = Command::new("curl");
    let url = format!("{registry}/subjects/{strange}.captions.v1-value/versions");
    curl.args([
        "-fsS",
        "-H",
        "Content-Type: application/vnd.schemaregistry.v1+json",
        "-d",
        body,
        &url,
    ]);
    output(curl);
    let mut curl = Command::new("curl");
    let url = format!("{registry}/config/{strange}.captions.v1-value");
    curl.args([
        "-fsS",
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/vnd.schemaregistry.v1+json",
    ]);
    curl.args(["-d", r#"{"compatibility": "BACKWARD_TRANSITIVE"}"#, &url]);
    output(curl);
    let refused = at_root(&[
        "schemas",
        "check",
        "--registry",
        &registry,
        "--namespace",
        &strange,
    ])
    .ended(1)
    .stdout;
    let line = refused
        .lines()
        .find(|line| line.contains(".captions.v1-value"))
        .unwrap();
    assert!(line.contains("INCOMPATIBLE"), "{refused}");
}

#[test]
fn completion_is_a_script_that_bash_takes() {
    let script = at_root(&["completion", "bash"]).ended(0).stdout;
    let place = Place::new();
    let path = place.write("completion.bash", &script);
    let mut bash = Command::new("bash");
    bash.args([
        "--norc",
        "-c",
        &format!("source {} && complete -p opusflow", path.display()),
    ]);
    assert!(output(bash).contains("_opusflow"));
    assert!(script.contains("--effective") && script.contains("--linger"));
}

#[test]
fn doctor_finds_everything_that_runs_here() {
    let place = Place::new();
    let top = format!(
        "kafka: {{ brokers: \"{}\", encoding: avro_registry, registry: {{ url: \"{}\" }}, \
         namespace: {} }}\ncache: {{ redis: \"{}\" }}",
        env("KAFKA_BROKERS"),
        env("REGISTRY_URL"),
        unique("e2e"),
        env("REDIS_URL")
    );
    let demo = place.write(
        "pipeline.yaml",
        Demo {
            top: &top,
            film: film::short(),
            sinks: "",
        }
        .text(),
    );
    let said = place
        .call(["doctor", demo.to_str().unwrap()])
        .ended(0)
        .stdout;
    for what in [
        "libtorch",
        "model cuts",
        "model tags",
        "model words",
        "kafka",
        "schema registry",
        "redis",
    ] {
        assert!(
            said.lines()
                .any(|line| line.starts_with(&format!("ok   {what}"))),
            "{what}:\n{said}"
        );
    }
    assert!(!said.contains("BAD"), "{said}");
}
