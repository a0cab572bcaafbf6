//! A pipeline file whose stages paint, run by the binary with a small model of random weights:
//! generated pictures -> diffuse -> files.

use crate::support::{Place, records, root};

/// `frames` pictures of `pattern` through `diffuse` with these parameters into files.
fn pipeline(pattern: &str, frames: u32, with: &str) -> String {
    format!(
        r#"version: 1
name: painted
threads: {{ tokio: 1, torch: 1, decode: 1 }}
models:
  sd: {{ path: "{model}", precision: f32, batch: {{ max_size: 2, max_wait: 0ms }} }}
stages:
  - id: bars
    kind: test
    with: {{ pattern: {pattern}, rate: 5, frames: {frames}, views: {{ small: {{ fps: native, size: 34x24 }} }} }}
  - id: painted
    kind: diffuse
    inputs: [bars.small]
    with: {{ model: sd, prompt: "a painting of {{stream}}", steps: 4, strength: 0.5, guidance: 1, {with} }}
  - {{ id: files, kind: file, inputs: [painted], with: {{ path: ./out, formats: [jsonl, avro, jpeg] }} }}
"#,
        model = root().join("tests/golden/sd-tiny").display(),
    )
}

#[test]
fn a_stream_is_painted_frame_by_frame_into_files() {
    let place = Place::new();
    for (format, extension) in [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")] {
        let folder = format!("{format}.yaml");
        let text = pipeline("snow", 4, &format!("format: {format}"))
            .replace("./out", &format!("./out-{format}"));
        let run = place.run(&place.write(&folder, text), &[]).ended(0);
        let balance = run.balance("small");
        assert_eq!(
            (balance.ingested, balance.delivered, balance.absorbed),
            (4, 4, 0)
        );
        let (_, files) = records::of_files(&place.path(&format!("out-{format}")));
        let pictures: Vec<_> = files["pictures"].values().collect();
        assert_eq!(pictures.len(), 4);
        for record in &pictures {
            assert_eq!(
                (&record["role"], &record["width"], &record["height"]),
                (&"frame".into(), &34.into(), &24.into())
            );
            assert_eq!(record["meta"]["model"]["id"], "sd-tiny");
            assert_eq!(
                record["flicker"].is_null(),
                record["meta"]["start"] == 0,
                "all but the first have one before them: {record}"
            );
            let path = url::Url::parse(record["uri"].as_str().unwrap())
                .unwrap()
                .to_file_path()
                .unwrap();
            let stored = image::open(&path).unwrap();
            assert_eq!(
                (stored.width(), stored.height()),
                (34, 24),
                "{}",
                path.display()
            );
        }
        let written = glob::glob(&format!(
            "{}/**/pictures/*.{extension}",
            place.path(&format!("out-{format}")).display()
        ))
        .unwrap();
        assert_eq!(written.count(), 4, "beside their records");
    }
}

#[test]
fn a_still_stream_is_painted_once() {
    let place = Place::new();
    let run = place
        .run(
            &place.write("still.yaml", pipeline("gradient", 5, "skip_similar: 0.99")),
            &[],
        )
        .ended(0);
    let balance = run.balance("small");
    assert_eq!(
        (balance.ingested, balance.delivered, balance.absorbed),
        (5, 1, 4)
    );
}

#[test]
fn equal_seeds_paint_equal_pictures_and_others_do_not() {
    let sums = |seed: u32| {
        let place = Place::new();
        place
            .run(
                &place.write(
                    "seeded.yaml",
                    pipeline("gradient", 1, &format!("seed: {seed}, cache: false")),
                ),
                &[],
            )
            .ended(0);
        let (_, files) = records::of_files(&place.path("out"));
        files["pictures"]
            .values()
            .map(|record| record["sha256"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(sums(7), sums(7));
    assert_ne!(sums(7), sums(8));
}

#[test]
fn a_network_that_paints_nothing_is_refused_before_anything_runs() {
    let place = Place::new();
    let text = pipeline("smpte", 1, "cache: false").replace("golden/sd-tiny", "golden/llama-tiny");
    let run = place
        .call([
            "validate".to_owned(),
            place.write("wrong.yaml", text).display().to_string(),
        ])
        .ended(2);
    assert!(
        run.stderr.contains("StableDiffusionPipeline") && run.stderr.contains("LlamaForCausalLM"),
        "{}",
        run.stderr
    );
}
