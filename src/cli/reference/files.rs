//! The files of the reference.

use std::fs;
use std::path::Path;

use super::{command_line, metrics, pipeline, records, stages};
use crate::error::{Error, Result};

/// One file of the reference.
#[derive(Debug)]
pub struct ReferenceFile {
    /// Its name in the folder.
    pub name: &'static str,
    /// What it holds.
    pub text: String,
}

/// Renders every file of the reference.
///
/// # Errors
/// Bug where a schema in the code is no JSON.
pub fn files() -> Result<Vec<ReferenceFile>> {
    let file = |name, text| ReferenceFile { name, text };
    Ok(vec![
        file("stages.md", stages::render()),
        file("pipeline.md", pipeline::render()),
        file("metrics.md", metrics::render()),
        file("cli.md", command_line::render()),
        file("records.md", records::render()?),
        file("pipeline.schema.json", pipeline::schema()?),
    ])
}

/// Writes every file of the reference into `folder`, which is made where it is missing.
///
/// # Errors
/// External where the folder cannot be written to.
pub(in crate::cli) fn write(folder: &Path) -> Result<()> {
    let unwritable = |error| Error::unwritable(folder, error, "another folder");
    fs::create_dir_all(folder).map_err(unwritable)?;
    for ReferenceFile { name, text } in files()? {
        fs::write(folder.join(name), text).map_err(unwritable)?;
    }
    Ok(())
}
