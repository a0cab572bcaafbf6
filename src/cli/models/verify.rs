//! `opusflow models verify`: whether models are what their hub says, and what their networks are
//! read from.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use super::folders::find_folder;
use super::numbers::rounded;
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::models::hub::hashes_of;
use crate::models::networks::check_weights;
use crate::models::{ModelFolder, ModelSummary};

pub(super) fn run(model_dir: &Path, names: &[String]) -> Result<ExitCode> {
    let mut good = true;
    for name in names {
        let faults = match find_folder(name, model_dir) {
            Ok(folder) => match verified(&folder) {
                Ok(line) => {
                    print(&format!("ok   {name}  {line}\n"))?;
                    continue;
                }
                Err(faults) => faults,
            },
            Err(error) => vec![error],
        };
        good = false;
        let mut text = format!("BAD  {name}\n");
        for fault in faults {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "     {fault}");
        }
        print(&text)?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// What is said of a good model, or all that is wrong with it.
fn verified(folder: &Path) -> Result<String, Vec<Error>> {
    let mut faults = Vec::new();
    let hashes = match hashes(folder, &mut faults) {
        Ok(0) => "no hashes are known".to_owned(),
        Ok(1) => "1 hash is right".to_owned(),
        Ok(number) => format!("{number} hashes are right"),
        Err(error) => return Err(vec![error]),
    };
    if let Err(error) = ModelFolder::open(folder).and_then(|folder| check_weights(&folder)) {
        faults.push(error);
    }
    match ModelSummary::read(folder) {
        Ok(summary) if faults.is_empty() => Ok(format!(
            "{}, {} parameters in {}, every key fits; {hashes}",
            summary.architecture,
            rounded(summary.parameters),
            summary.format
        )),
        // What keeps a summary from being read keeps the weights from it, too, and was said.
        Err(error) if faults.is_empty() => Err(vec![error]),
        _ => Err(faults),
    }
}

/// Hashes every file whose hash is known; gives how many are right.
fn hashes(folder: &Path, faults: &mut Vec<Error>) -> Result<usize> {
    let unreadable =
        |error| Error::external(format!("cannot read {}", folder.display())).because(error);
    let mut right = 0;
    for (path, hash) in hashes_of(folder).map_err(unreadable)? {
        match hash.of_file(&path) {
            Ok(found) if found == hash => right += 1,
            Ok(found) => {
                let file = path.canonicalize().unwrap_or_else(|_| path.clone());
                let fault = format!(
                    "the hash of {} is {}, not {}",
                    path.display(),
                    found.as_str(),
                    hash.as_str()
                );
                faults.push(Error::model(fault).hint(format!(
                    "delete {} and pull the model again",
                    file.display()
                )));
            }
            Err(error) => faults.push(
                Error::model(format!("cannot read {}", path.display()))
                    .because(error)
                    .hint("pull the model again"),
            ),
        }
    }
    Ok(right)
}
