//! The crate's own source as the laws read it: its files, and their code without comments, texts
//! and tests.

use std::path::{Path, PathBuf};

/// One file of `src/`.
pub struct File {
    /// Its path below `src/`.
    pub path: PathBuf,
    /// As it is written.
    pub text: String,
    /// Without comments, without the insides of texts, without what only tests are given.
    pub code: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: PathBuf::from(path),
            text: text.to_owned(),
            code: without_tests(&bare(text)),
        }
    }

    /// The module it is, from the crate's root: `stage/queue/mod.rs` is `["stage", "queue"]`.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut names: Vec<_> = path
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        names
    }

    /// The room it lies in; `lib.rs` and `main.rs` lie in none.
    pub fn room(&self) -> Option<String> {
        let room = self.module().into_iter().next()?;
        (!matches!(&*room, "lib" | "main")).then_some(room)
    }
}

/// Every file of `src/`, in the order of their paths, those that only tests are given left out.
pub fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is text");
                let path = path.strip_prefix(&root).expect("it lies in src");
                files.push(File::new(&path.to_string_lossy(), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Whether a file is given to tests only: a `tests.rs`, what lies in a folder `tests`, or a module
/// that its parent declares behind `#[cfg(test)]`.
pub fn is_test(file: &File, files: &[File]) -> bool {
    let module = file.module();
    if module.iter().any(|name| name == "tests") {
        return true;
    }
    let Some((name, parent)) = module.split_last() else {
        return false;
    };
    let parent = files.iter().find(|file| file.module() == parent);
    let declared = format!("mod {name};");
    parent.is_some_and(|parent| {
        bare(&parent.text).contains(&declared) && !parent.code.contains(&declared)
    })
}

/// The code without comments and with nothing inside its texts, so that neither is taken for code.
pub fn bare(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(n, letter)| letters.get(at + n) == Some(&letter))
    };
    while at < letters.len() {
        let letter = letters[at];
        if starts(at, "//") {
            while at < letters.len() && letters[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while at < letters.len() && !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if letter == '"' {
            at = end_of_text(&letters, at + 1);
            code.push_str("\"\"");
        } else if letter == 'r' && matches!(letters.get(at + 1), Some('"' | '#')) && !in_word(&code)
        {
            match end_of_raw(&letters, at + 1) {
                Some(end) => {
                    at = end;
                    code.push_str("\"\"");
                }
                None => {
                    code.push(letter);
                    at += 1;
                }
            }
        } else if letter == '\'' && letters.get(at + 1) == Some(&'\\') {
            at += 3;
            while at < letters.len() && letters[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if letter == '\'' && letters.get(at + 2) == Some(&'\'') {
            at += 3;
        } else {
            code.push(letter);
            at += 1;
        }
    }
    code
}

fn in_word(code: &str) -> bool {
    code.ends_with(|letter: char| (letter.is_alphanumeric() || letter == '_') && letter != 'b')
}

/// Behind the closing quote of a text whose inside begins at `at`.
fn end_of_text(letters: &[char], mut at: usize) -> usize {
    while at < letters.len() && letters[at] != '"' {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Behind the end of a raw text whose `#`s or quote begin at `at`; none where it is no raw text.
fn end_of_raw(letters: &[char], at: usize) -> Option<usize> {
    let hashes = letters[at..]
        .iter()
        .take_while(|letter| **letter == '#')
        .count();
    if letters.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut end = at + hashes + 1;
    while end < letters.len() {
        let closing = letters[end + 1..]
            .iter()
            .take(hashes)
            .filter(|letter| **letter == '#')
            .count();
        if letters[end] == '"' && closing == hashes {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    None
}

/// Bare code without the items behind `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        rest = after_item(&rest[at + MARK.len()..]);
    }
    kept.push_str(rest);
    kept
}

/// What follows the first item of `code`: it ends with its braces, or with a semicolon before any.
fn after_item(code: &str) -> &str {
    let mut depth = 0usize;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return &code[at + 1..],
            '}' => depth -= 1,
            ';' if depth == 0 => return &code[at + 1..],
            _ => {}
        }
    }
    ""
}
