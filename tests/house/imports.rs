//! What a file names of the crate: its `use` trees taken apart, and the paths written out in its
//! code.

use super::source::File;

/// One name that a `use` brings in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// From the crate's root.
    pub path: Vec<String>,
    /// The name it has here; `*` for all of a module.
    pub name: String,
    /// Whether others may name it through this file.
    pub public: bool,
}

/// What a file names.
#[derive(Debug, Default)]
pub struct Names {
    pub imports: Vec<Import>,
    /// Paths in the code that begin with `crate`, `self` or `super`, from the crate's root.
    pub inline: Vec<Vec<String>>,
    /// Modules that it declares.
    pub children: Vec<String>,
    /// Items that it defines.
    pub items: Vec<String>,
    /// The words of its code outside of `use`.
    pub words: Vec<String>,
}

const ITEMS: &[&str] = &[
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "union",
    "macro_rules",
];

/// Reads them off a file's code.
pub fn names(file: &File) -> Names {
    let module = file.module();
    let tokens = tokens(&file.code);
    let mut names = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        if token == "use" {
            let end = at
                + tokens[at..]
                    .iter()
                    .position(|token| token == ";")
                    .unwrap_or(0);
            let before = at.checked_sub(1).map(|at| tokens[at].as_str());
            let public = matches!(before, Some("pub" | ")"));
            tree(&tokens[at + 1..end], &module, public, &mut names.imports);
            at = end + 1;
            continue;
        }
        if token == "mod" && tokens.get(at + 2).is_some_and(|token| token == ";") {
            names.children.push(tokens[at + 1].clone());
            at += 3;
            continue;
        }
        if ITEMS.contains(&token)
            && let Some(name) = tokens[at + 1..].iter().find(|token| *token != "!")
        {
            names.items.push(name.clone());
        }
        if is_name(token) {
            let path = path_at(&tokens, at);
            let from = path[0].as_str();
            if path.len() > 1 && (matches!(from, "crate" | "self" | "super")) {
                names.inline.push(absolute(&path, &module));
            }
            names.words.extend(path.iter().cloned());
            at += 2 * path.len() - 1;
            continue;
        }
        at += 1;
    }
    let children = names.children.clone();
    names
        .inline
        .extend(child_paths(&tokens, &children, &module));
    names
}

/// Paths in the code that begin with the name of a child: `child::Thing`.
fn child_paths(tokens: &[String], children: &[String], module: &[String]) -> Vec<Vec<String>> {
    let starts = |at: &usize| {
        let free = *at == 0 || tokens[*at - 1] != "::";
        free && children.contains(&tokens[*at]) && tokens.get(at + 1).is_some_and(|t| t == "::")
    };
    let mut inside_use = false;
    let mut paths = Vec::new();
    for at in 0..tokens.len() {
        match tokens[at].as_str() {
            "use" => inside_use = true,
            ";" => inside_use = false,
            _ => {}
        }
        if !inside_use && starts(&at) {
            paths.push([module, &path_at(tokens, at)].concat());
        }
    }
    paths
}

/// Words, `::`, and single letters of anything else.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut letters = code.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_alphanumeric() || letter == '_' {
            let mut word = String::from(letter);
            while let Some(next) = letters.next_if(|c| c.is_alphanumeric() || *c == '_') {
                word.push(next);
            }
            tokens.push(word);
        } else if letter == ':' && letters.next_if_eq(&':').is_some() {
            tokens.push("::".to_owned());
        } else if !letter.is_whitespace() {
            tokens.push(letter.to_string());
        }
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// The path that begins at a token: names with `::` between them.
fn path_at(tokens: &[String], at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].clone()];
    let mut next = at + 1;
    while tokens.get(next).is_some_and(|token| token == "::")
        && tokens.get(next + 1).is_some_and(|token| is_name(token))
    {
        path.push(tokens[next + 1].clone());
        next += 2;
    }
    path
}

/// Takes a `use` tree apart.
fn tree(tokens: &[String], module: &[String], public: bool, into: &mut Vec<Import>) {
    let mut flat = Vec::new();
    flatten(tokens, &[], &mut flat);
    for (mut path, rename) in flat {
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let name = rename.or_else(|| path.last().cloned()).unwrap_or_default();
        if name == "*" {
            path.pop();
        }
        into.push(Import {
            path: absolute(&path, module),
            name,
            public,
        });
    }
}

type Flat = (Vec<String>, Option<String>);

fn flatten(tokens: &[String], prefix: &[String], into: &mut Vec<Flat>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => {
                for entry in entries(&tokens[at + 1..]) {
                    flatten(entry, &path, into);
                }
                return;
            }
            "as" => {
                into.push((path, tokens.get(at + 1).cloned()));
                return;
            }
            "::" => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    if path.len() > prefix.len() {
        into.push((path, None));
    }
}

/// The entries of a brace list that is open at the first token.
fn entries(tokens: &[String]) -> Vec<&[String]> {
    let (mut depth, mut from, mut entries) = (0, 0, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 0 => {
                entries.push(&tokens[from..at]);
                break;
            }
            "}" => depth -= 1,
            "," if depth == 0 => {
                entries.push(&tokens[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    entries
}

/// A path as written in `module`, from the crate's root. What begins with another name is a child
/// of the module, or of another crate: then nothing is found under it.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate" | "opusflow") => return path[1..].to_vec(),
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|name| name == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        _ => {}
    }
    base.extend_from_slice(rest);
    base
}
