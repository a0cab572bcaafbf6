//! The consumers that pages show, run as they stand against the broker and the registry of the
//! tests; only the namespace is that of a run whose records are there.

use std::process::Command;

use super::pages::pages;
use crate::records::REGISTRY;
use crate::support::{Place, env, output};

/// The namespace of the pages' examples.
const NAMESPACE: &str = "archive";

#[test]
fn python_consumers_read_what_a_run_wrote() {
    let written = &*REGISTRY;
    let place = Place::new();
    let mut count = 0;
    for block in pages().into_iter().flat_map(|page| page.blocks) {
        if block.language != "python" || block.is_unchecked() {
            continue;
        }
        count += 1;
        assert!(
            block.text.contains(NAMESPACE),
            "{}: {NAMESPACE}",
            block.place
        );
        let script = place.write("page.py", block.text.replace(NAMESPACE, &written.namespace));
        let mut python = Command::new(env("OPUSFLOW_PYTHON"));
        python
            .arg(script)
            .env("KAFKA_BROKERS", env("KAFKA_BROKERS"))
            .env("REGISTRY_URL", env("REGISTRY_URL"));
        let said = output(python);
        let ended = said
            .lines()
            .filter(|line| line.contains("ended: end_of_stream"));
        assert_eq!(ended.count(), 1, "{}:\n{said}", block.place);
        let captions = said.lines().filter(|line| !line.contains("ended:"));
        assert_eq!(
            captions.count(),
            written.records("captions").len(),
            "{}:\n{said}",
            block.place
        );
    }
    assert!(count >= 1, "a consumer in Python is shown");
}
