//! `stages.md`: every kind of stage with its payloads and parameters.

use super::fields::tables;
use super::markdown::{code, heading, page, table};
use crate::cli::stages::{joins, payloads};
use crate::stage::StageKind;
use crate::stages::KINDS;

pub(super) fn render() -> String {
    let mut page = page(
        "Stages",
        "Every kind of stage: what it takes and gives, and the keys of its `with`. The keys that \
         all stages share are in [pipeline.md](pipeline.md#stages). `opusflow stages KIND` prints \
         the same in a terminal.\n",
    );
    let rows: Vec<_> = KINDS
        .iter()
        .map(|kind| {
            [
                code(kind.name),
                kind.role().as_str().to_owned(),
                kind.doc.to_owned(),
            ]
        })
        .collect();
    table(["kind", "role", "what it does"], &rows, &mut page);
    for kind in KINDS {
        section(kind, &mut page);
    }
    page
}

fn section(kind: &StageKind, page: &mut String) {
    let title = format!("{} ({})", code(kind.name), kind.role().as_str());
    heading(2, &title, page);
    page.push_str(kind.doc);
    page.push_str("\n\n");
    let mut facts = Vec::new();
    if !kind.accepts.is_empty() {
        facts.push(format!("takes {}", payloads(kind.accepts)));
    }
    if !kind.emits.is_empty() {
        facts.push(format!("gives {}", payloads(kind.emits)));
    }
    facts.extend(joins(kind));
    for fact in facts {
        page.push_str(&format!("- {fact}\n"));
    }
    page.push('\n');
    if kind.params.is_empty() {
        page.push_str("It has no parameters.\n");
    } else {
        tables("with", kind.params, 3, page);
    }
}
