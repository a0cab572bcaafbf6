//! What shapes accept and refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::expand;

const VIEW: &[Field] = &[
    Field {
        name: "fps",
        ty: Type::Fps,
        default: Default::Is("native"),
        doc: "Frames a second.",
    },
    Field {
        name: "size",
        ty: Type::Size,
        default: Default::Is("native"),
        doc: "Pixels.",
    },
];

const FIELDS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&["A"]),
        default: Default::Required,
        doc: "The model.",
    },
    Field {
        name: "top",
        ty: Type::Int(1, 10),
        default: Default::Is("5"),
        doc: "How many.",
    },
    Field {
        name: "most",
        ty: Type::IntOrAuto(1, 10),
        default: Default::Is("auto"),
        doc: "How many at most.",
    },
    Field {
        name: "threshold",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.5"),
        doc: "From where on.",
    },
    Field {
        name: "wait",
        ty: Type::Duration,
        default: Default::Is("3s"),
        doc: "How long.",
    },
    Field {
        name: "limit",
        ty: Type::Bytes,
        default: Default::Absent,
        doc: "How large.",
    },
    Field {
        name: "mode",
        ty: Type::Choice(&["close", "keep"]),
        default: Default::Is("close"),
        doc: "How.",
    },
    Field {
        name: "on",
        ty: Type::Bool,
        default: Default::Is("false"),
        doc: "Whether.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What to say.",
    },
    Field {
        name: "paths",
        ty: Type::List(&Type::Text),
        default: Default::Is("[]"),
        doc: "Files.",
    },
    Field {
        name: "views",
        ty: Type::Map(&Type::Object(VIEW)),
        default: Default::Is("{}"),
        doc: "Views.",
    },
    Field {
        name: "key",
        ty: Type::Secret,
        default: Default::Absent,
        doc: "A secret.",
    },
];

fn read(text: &str) -> (Params, Vec<String>) {
    let mut problems = Problems::new(&SourceText::new("x", text));
    let mut node = parse(&mut problems, 0, 0).unwrap();
    let environment = BTreeMap::from([
        ("N".to_owned(), "7".to_owned()),
        ("S".to_owned(), "close".to_owned()),
    ]);
    expand(&mut node, &environment, &mut problems);
    let params = Reader::new(&mut problems).object(&node, node.place, FIELDS);
    (params, problems.lines())
}

fn complaint(text: &str) -> String {
    read(&format!("model: m\n{text}")).1.join("\n")
}

#[test]
fn defaults_are_filled_in_and_origins_kept() {
    let (params, problems) = read(
        "model: m\ntop: \"${N}\"\nwait: 1h30m\nmode: ${S}\npaths: a.mp4\nviews: { a: { fps: 2 } \
         }\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(
        (
            params.int("top"),
            params.float("threshold"),
            params.bool("on")
        ),
        (7, 0.5, false)
    );
    assert_eq!(
        (params.duration("wait"), params.opt_bytes("limit")),
        (Duration::from_secs(5400), None)
    );
    assert_eq!(
        (
            params.int_or_auto("most"),
            read("model: m\nmost: 7").0.int_or_auto("most")
        ),
        (None, Some(7))
    );
    assert_eq!(params.list("paths"), [Value::Text("a.mp4".into())]);
    let view = params.map("views")[0].1.as_object().unwrap();
    assert_eq!((view.fps("fps"), view.size("size")), (Some((2, 1)), None));
    let origin = |key: &str| {
        params
            .iter()
            .find(|(name, _)| *name == key)
            .unwrap()
            .1
            .provenance
            .clone()
    };
    assert_eq!(origin("top"), Provenance::Environment("N".into(), 2));
    assert_eq!(
        (origin("wait"), origin("threshold")),
        (Provenance::File(3), Provenance::Default)
    );
}

#[test]
fn text_stays_as_it_is_written() {
    for text in ["1.10", "no", "true", "0x10", "\"\""] {
        assert_eq!(
            &**read(&format!("model: m\nprompt: {text}")).0.text("prompt"),
            text.trim_matches('"')
        );
    }
    assert!(
        read("model: m\nprompt: ~\nwait:\n")
            .0
            .opt_text("prompt")
            .is_none()
    );
}

#[test]
fn refusals_say_what_is_taken() {
    assert_eq!(
        complaint("treshold: 1"),
        "x:2:1: unknown key `treshold` (did you mean `threshold`?)"
    );
    assert_eq!(read("top: 1").1, ["x:1:1: `model` is missing"]);
    assert_eq!(
        complaint("top: many"),
        "x:2:6: `top` takes a whole number, not `many`"
    );
    assert_eq!(
        complaint("top: 2.5"),
        "x:2:6: `top` takes a whole number, not `2.5`"
    );
    assert_eq!(
        complaint("top: \"3\""),
        "x:2:6: `top` takes a whole number, not the text `3` (take the quotes away)"
    );
    assert_eq!(
        complaint("top: 11"),
        "x:2:6: `top` must be between 1 and 10, not `11`"
    );
    assert_eq!(
        complaint("top: [1]"),
        "x:2:6: `top` takes a whole number, not a list"
    );
    assert_eq!(
        complaint("most: many"),
        "x:2:7: `most` takes a whole number, or `auto`, not `many`"
    );
    assert_eq!(
        complaint("most: 0"),
        "x:2:7: `most` must be between 1 and 10, not `0`"
    );
    assert_eq!(
        complaint("threshold: .nan"),
        "x:2:12: `threshold` takes a number, not `.nan`"
    );
    assert_eq!(
        complaint("threshold: 1.5"),
        "x:2:12: `threshold` must be between 0 and 1, not `1.5`"
    );
    assert_eq!(
        complaint("wait: 5"),
        "x:2:7: `wait` needs a unit, not `5` alone (write `5s` or `5ms`)"
    );
    assert_eq!(
        complaint("wait: soon"),
        "x:2:7: `wait` takes a time such as `500ms`, `15s` or `1h30m`, not `soon`"
    );
    assert_eq!(
        complaint("limit: 64"),
        "x:2:8: `limit` needs a unit, not `64` alone (write `64B`, `64KiB` or `64MiB`)"
    );
    assert_eq!(
        complaint("mode: clsoe"),
        "x:2:7: `mode` takes close or keep, not `clsoe` (did you mean `close`?)"
    );
    assert_eq!(
        complaint("on: yes"),
        "x:2:5: `on` takes true or false, not `yes`"
    );
    assert_eq!(
        complaint("views: { a: { size: big } }"),
        "x:2:21: `size` takes a size such as `640x360`, or `native`, not `big`"
    );
    assert_eq!(
        complaint("views: { a: 3 }"),
        "x:2:13: a mapping with the keys fps, size stands here, not `3`"
    );
    assert_eq!(
        complaint("<<: {}"),
        "x:2:1: unknown key `<<` (merge keys are not part of YAML 1.2: repeat a whole value with \
         `*name`)"
    );
}

#[test]
fn all_problems_are_said_at_once() {
    let text = "top: 0\nthreshold: x\nviews: { a: { fps: 0 }, b: { size: 1 } }\nnothing: 1\n";
    assert_eq!(read(text).1.len(), 6, "{:?}", read(text).1);
}

#[test]
fn secrets_come_from_files_and_are_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hunter2\n\n").unwrap();
    let (params, problems) = read(&format!("model: m\nkey: {{ file: {} }}", path.display()));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(params.secret("key").reveal(), "hunter2\n");
    assert!(!format!("{params:?}").contains("hunter2"));
    assert!(
        complaint("key: { file: /nowhere/secret }")
            .starts_with("x:2:14: cannot read the file of the secret `key` (no such file")
    );
    assert_eq!(complaint("key: { path: x }").lines().count(), 2);
    assert_eq!(
        read("model: m\nkey: plain").0.secret("key").reveal(),
        "plain"
    );
}
