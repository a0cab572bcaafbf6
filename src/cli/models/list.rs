//! `opusflow models list`: what is in the model folder and in the hub's cache.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::folders::hub_settings;
use super::numbers::rounded;
use crate::cli::output::print;
use crate::cli::stages;
use crate::error::{Error, Result};
use crate::models::ModelSummary;
use crate::models::hub::{Snapshot, commit_of};

/// A model that was found.
struct Found {
    /// What a pipeline's `path` calls it.
    name: String,
    path: PathBuf,
    /// The branches and tags of the hub's cache that it is.
    refs: Vec<String>,
    summary: Result<ModelSummary>,
}

pub(super) fn run(model_dir: &Path, as_json: bool) -> Result<ExitCode> {
    let cache = hub_settings()?.cache;
    let mut found = in_folder(model_dir)?;
    let unreadable = |error| {
        Error::external(format!(
            "cannot read the hub's cache {}",
            cache.path().display()
        ))
        .because(error)
    };
    found.extend(
        cache
            .snapshots()
            .map_err(unreadable)?
            .into_iter()
            .map(of_snapshot),
    );
    if as_json {
        let list: Vec<Value> = found.iter().map(Found::json).collect();
        let text = serde_json::to_string_pretty(&list)
            .map_err(|error| Error::bug("a list of models does not print").because(error))?;
        return print(&(text + "\n"));
    }
    if found.is_empty() {
        let places = format!(
            "no models in {} and in {}\n",
            model_dir.display(),
            cache.path().display()
        );
        return print(&places);
    }
    print(&table(&found))
}

/// The model folders in a folder, `name` or `owner/name`.
fn in_folder(folder: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (name, path) in folders(folder)? {
        if ModelSummary::is_model(&path) {
            found.push(Found {
                name,
                summary: ModelSummary::read(&path),
                path,
                refs: Vec::new(),
            });
            continue;
        }
        for (inner, path) in folders(&path)?
            .into_iter()
            .filter(|(_, path)| ModelSummary::is_model(path))
        {
            found.push(Found {
                name: format!("{name}/{inner}"),
                summary: ModelSummary::read(&path),
                path,
                refs: Vec::new(),
            });
        }
    }
    Ok(found)
}

fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable =
        |error| Error::external(format!("cannot read {}", folder.display())).because(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        found.extend(
            name.filter(|name| !name.starts_with('.') && path.is_dir())
                .map(|name| (name, path)),
        );
    }
    found.sort();
    Ok(found)
}

fn of_snapshot(snapshot: Snapshot) -> Found {
    let revision = match snapshot
        .refs
        .iter()
        .find(|name| *name == "main")
        .or(snapshot.refs.first())
    {
        Some(name) if name == "main" => String::new(),
        Some(name) => format!("@{name}"),
        None => format!("@{}", snapshot.commit),
    };
    let name = format!("{}{revision}", snapshot.repository);
    Found {
        name,
        summary: ModelSummary::read(&snapshot.path),
        path: snapshot.path,
        refs: snapshot.refs,
    }
}

impl Found {
    fn json(&self) -> Value {
        let summary = self.summary.as_ref().ok();
        json!({
            "name": self.name,
            "path": self.path,
            "commit": commit_of(&self.path),
            "refs": self.refs,
            "architecture": summary.map(|summary| &summary.architecture),
            "parameters": summary.map(|summary| summary.parameters),
            "format": summary.map(|summary| &summary.format),
            "bytes": summary.map(|summary| summary.bytes),
            "stages": summary.map(|summary| stages::kinds_taking(&summary.architecture)),
            "problem": self.summary.as_ref().err().map(Error::to_string),
        })
    }

    fn row(&self) -> [String; 7] {
        let revision =
            commit_of(&self.path).map_or_else(|| "-".to_owned(), |commit| commit[..7].to_owned());
        match &self.summary {
            Ok(summary) => {
                let stages = stages::kinds_taking(&summary.architecture).join(", ");
                let (parameters, format) = (rounded(summary.parameters), summary.format.clone());
                let stages = if stages.is_empty() {
                    "-".to_owned()
                } else {
                    stages
                };
                [
                    self.name.clone(),
                    revision,
                    summary.architecture.clone(),
                    parameters,
                    format,
                    HumanBytes(summary.bytes).to_string(),
                    stages,
                ]
            }
            Err(error) => [
                self.name.clone(),
                revision,
                error.message().to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ],
        }
    }
}

fn table(found: &[Found]) -> String {
    let head = [
        "NAME",
        "REVISION",
        "ARCHITECTURE",
        "PARAMETERS",
        "FORMAT",
        "SIZE",
        "STAGES",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head)
        .chain(found.iter().map(Found::row))
        .collect();
    // A row that says what is wrong says it in the columns that it does not fill.
    let whole = |row: &&[String; 7]| !row[3].is_empty();
    let width = |column: usize| {
        let fits = rows.iter().filter(|row| column < 2 || whole(row));
        fits.map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
