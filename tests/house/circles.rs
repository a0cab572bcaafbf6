//! Circles between the files of a room: which file names what of which, through every doorway, and
//! who can be reached from whom.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Names, names};
use super::source::{File, is_test};

/// How many doorways a name may pass through.
const DOORWAYS: usize = 16;

/// The crate's modules, by their paths from its root.
struct Modules {
    names: BTreeMap<Vec<String>, Names>,
}

/// For each file of a room, the files of the same room that it names.
type Edges = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// Each circle once, as the modules along it: `stage::queue -> stage::inbox -> stage::queue`.
pub fn circles(files: &[File]) -> Vec<String> {
    let code = files.iter().filter(|file| !is_test(file, files));
    let modules = Modules {
        names: code.map(|file| (file.module(), names(file))).collect(),
    };
    let edges = modules.edges();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for start in edges.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(way) = way_back(&edges, start) {
            seen.extend(way.iter().cloned());
            let mut way: Vec<_> = way.iter().map(|module| module.join("::")).collect();
            way.push(start.join("::"));
            found.push(way.join(" -> "));
        }
    }
    found
}

/// The shortest way from a file back to itself.
fn way_back(edges: &Edges, start: &Vec<String>) -> Option<Vec<Vec<String>>> {
    let mut ways = vec![vec![start.clone()]];
    let mut reached = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in &edges[way.last()?] {
                if next == start {
                    return Some(way);
                }
                if reached.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

impl Modules {
    fn edges(&self) -> Edges {
        let edges = self.names.iter().map(|(module, names)| {
            let named = names
                .imports
                .iter()
                // A doorway that lets others through uses nothing itself.
                .filter(|import| !import.public || names.words.contains(&import.name))
                .map(|import| &import.path)
                .chain(&names.inline);
            let others = named
                .filter_map(|path| self.home(path, DOORWAYS))
                .filter(|other| other != module && other.first() == module.first())
                .collect();
            (module.clone(), others)
        });
        edges.collect()
    }

    /// The module whose file defines what a path names; none outside of the crate.
    fn home(&self, path: &[String], doorways: usize) -> Option<Vec<String>> {
        let mut module = Vec::new();
        for (at, name) in path.iter().enumerate() {
            let inner = [module.clone(), vec![name.clone()]].concat();
            if self.names.contains_key(&inner) {
                module = inner;
                continue;
            }
            let names = self.names.get(&module)?;
            if names.items.contains(name) || doorways == 0 {
                return Some(module);
            }
            if let Some(import) = names.imports.iter().find(|import| import.name == *name) {
                let behind = [&import.path, &path[at + 1..]].concat();
                return self.home(&behind, doorways - 1);
            }
            let globs = names.imports.iter().filter(|import| import.name == "*");
            for glob in globs {
                let inside = self.names.get(&glob.path);
                if inside.is_some_and(|inside| inside.offers(name)) {
                    let behind = [&glob.path, &path[at..]].concat();
                    return self.home(&behind, doorways - 1);
                }
            }
            return Some(module);
        }
        (!module.is_empty()).then_some(module)
    }
}

impl Names {
    fn offers(&self, name: &String) -> bool {
        self.items.contains(name)
            || self.children.contains(name)
            || self.imports.iter().any(|import| import.name == *name)
    }
}
