//! `pipeline.md`: every key of a pipeline file but those of a stage's `with`.

use super::fields::tables;
use super::markdown::{code, heading, page};
use crate::error::{Error, Result};
use crate::pipeline::grammar::{INPUT, STAGE, TOP, json_schema};
use crate::stages::KINDS;

pub(super) fn render() -> String {
    let mut page = page(
        "The pipeline file",
        "Every key of a pipeline file; those of a stage's `with` are in [stages.md](stages.md). \
         Times carry their unit (`500ms`, `15s`, `1h30m`), sizes too (`64KiB`, `2GiB`). A list of \
         one may stand without its brackets. A key that is not listed is refused. `NAME` stands \
         for a name of your own, `[]` for each element of a list. Editors take \
         [pipeline.schema.json](pipeline.schema.json).",
    );
    heading(2, "At the top", &mut page);
    tables("", TOP, 2, &mut page);
    for (path, fields) in [("stages[]", STAGE), ("stages[].inputs[]", INPUT)] {
        heading(2, &code(path), &mut page);
        tables(path, fields, 2, &mut page);
    }
    page
}

/// The JSON Schema of pipeline files, as text.
pub(in crate::cli) fn schema() -> Result<String> {
    let text = serde_json::to_string_pretty(&json_schema(KINDS))
        .map_err(|error| Error::bug("the schema does not print").because(error))?;
    Ok(text + "\n")
}
