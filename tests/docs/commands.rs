//! Every shell line names a command, options and files that there are; what is cheap and harmless
//! is run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use super::pages::pages;
use super::shell::{self, Command};
use super::site::Site;
use crate::support::{env, root};

/// The command line as it describes itself.
pub(super) struct Help {
    /// What `--help` says, by command: "", "run", "models pull".
    texts: BTreeMap<String, String>,
}

/// That of the binary under test.
pub(super) static HELP: LazyLock<Help> = LazyLock::new(|| Help::of(&Site::new()));

impl Help {
    fn of(site: &Site) -> Self {
        let mut texts = BTreeMap::new();
        let mut open = vec![String::new()];
        while let Some(command) = open.pop() {
            let mut arguments: Vec<&str> = command.split_whitespace().collect();
            arguments.push("--help");
            let text = site.said(&arguments);
            let listed = text.split("Commands:\n").nth(1).unwrap_or_default();
            for line in listed.lines().take_while(|line| line.starts_with("  ")) {
                let name = line.split_whitespace().next().unwrap_or_default();
                if name != "help" {
                    open.push(format!("{command} {name}").trim().to_owned());
                }
            }
            texts.insert(command, text);
        }
        assert!(texts.len() > 10, "{:?}", texts.keys());
        Self { texts }
    }

    /// The command that the words begin with, and the words that follow it.
    fn command<'w>(&self, words: &'w [String]) -> (String, &'w [String]) {
        let mut length = words.len().min(2);
        while length > 0 && !self.texts.contains_key(&words[..length].join(" ")) {
            length -= 1;
        }
        (words[..length].join(" "), &words[length..])
    }

    /// Whether there is a command of this name.
    pub fn is_command(&self, name: &str) -> bool {
        self.texts.contains_key(name)
    }

    /// Whether any command has this option.
    pub fn has(&self, option: &str) -> bool {
        self.texts.values().any(|text| lists(text, option))
    }

    /// What is wrong with the words after `opusflow`.
    pub fn fault(&self, words: &[String]) -> Option<String> {
        let (command, rest) = self.command(words);
        let text = &self.texts[&command];
        if command.is_empty() && rest.first().is_some_and(|word| !word.starts_with('-')) {
            return Some(format!("there is no command `{}`", rest[0]));
        }
        if text.contains("Commands:\n") && rest.first().is_some_and(|word| !word.starts_with('-')) {
            return Some(format!("`{command}` has no command `{}`", rest[0]));
        }
        rest.iter()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.split('=').next().unwrap_or(word))
            .find(|option| !lists(text, option))
            .map(|option| format!("`{command}` has no option `{option}`"))
    }
}

/// Whether a help text lists an option, as a whole word.
fn lists(text: &str, option: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '`'))
        .any(|word| word == option)
}

/// Programs that the set-up installs or asks for.
const PROGRAMS: [&str; 4] = ["cargo", "docker", "kcat", "java"];

/// Scripts whose words are names of tests, which may be any.
const FREE: [&str; 1] = ["ops/test"];

/// What is wrong with a command, as far as it can be seen without running it.
fn fault(command: &Command) -> Option<String> {
    let words = &command.words;
    let (program, arguments) = (words[0].as_str(), &words[1..]);
    let missing = words.iter().find(|word| is_path(word) && !exists(word));
    if let Some(path) = missing {
        return Some(format!("there is no file `{path}`"));
    }
    if program.rsplit('/').next() == Some("opusflow") {
        return HELP.fault(arguments);
    }
    if program == "ops/demo" {
        let mut run = vec!["run".to_owned(), "pipelines/demo.yaml".to_owned()];
        run.extend_from_slice(arguments);
        return HELP.fault(&run);
    }
    if program == ".venv/bin/python" {
        let script = fs::read_to_string(root().join(&arguments[0])).unwrap();
        return unknown(
            &script,
            arguments
                .iter()
                .skip(1)
                .filter(|word| word.starts_with('-')),
        );
    }
    if is_path(program) {
        let mode = fs::metadata(root().join(program))
            .unwrap()
            .permissions()
            .mode();
        if mode & 0o111 == 0 {
            return Some(format!("`{program}` is not executable"));
        }
        let script = fs::read_to_string(root().join(program)).unwrap();
        let named = |word: &&String| {
            let is_word = word
                .chars()
                .all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '_'));
            is_word && (word.starts_with('-') || !FREE.contains(&program))
        };
        return unknown(&script, arguments.iter().filter(named));
    }
    (!PROGRAMS.contains(&program)).then(|| format!("`{program}` is no program of the set-up"))
}

/// The first of these words that a script does not know.
fn unknown<'w>(script: &str, words: impl IntoIterator<Item = &'w String>) -> Option<String> {
    let knows = |word: &str| {
        script
            .split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_')))
            .any(|known| known == word)
    };
    words
        .into_iter()
        .find(|word| !knows(word))
        .map(|word| format!("the script does not know `{word}`"))
}

/// Whether a word names a file of the repository.
pub(super) fn is_path(word: &str) -> bool {
    const FOLDERS: [&str; 8] = [
        "ops/",
        "pipelines/",
        "tests/",
        "schemas/",
        "src/",
        "docs/",
        "benches/",
        ".ci/",
    ];
    FOLDERS.iter().any(|folder| word.starts_with(folder))
}

/// Whether a file of the repository is there; `*` stands for part of a name, NAME for any.
pub(super) fn exists(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    if let Some((before, _)) = path
        .split_once(['*', 'N'])
        .filter(|_| path.contains('*') || path.contains("NAME"))
    {
        let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
        return root().join(folder).is_dir();
    }
    root().join(path).exists()
}

/// Whether a command only looks at files, and ends at once.
fn is_harmless(command: &str, words: &[String]) -> bool {
    matches!(
        command,
        "validate"
            | "graph"
            | "stages"
            | "config schema"
            | "completion"
            | "schemas list"
            | "schemas show"
            | "models list"
    ) || (command == "run" && words.iter().any(|word| word == "pipelines/test.yaml"))
}

/// Runs a command of the binary, which must end well.
fn run(site: &Site, arguments: &[String], command: &Command, place: &str) {
    let output = site.opusflow(arguments, &command.variables);
    assert!(
        output.status.success(),
        "{place}: {arguments:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The shell lines of all pages.
fn lines() -> Vec<(String, Command)> {
    pages()
        .iter()
        .flat_map(|page| &page.blocks)
        .filter(|block| block.language == "sh" && !block.is_unchecked())
        .flat_map(|block| {
            let commands = shell::commands(&block.text).into_iter();
            commands.map(|command| (block.place.clone(), command))
        })
        .collect()
}

fn is_ours(command: &Command) -> bool {
    command.words[0].rsplit('/').next() == Some("opusflow")
}

#[test]
fn shell_lines_name_what_there_is_and_harmless_ones_run() {
    let site = Site::new();
    let (mut checked, mut ran) = (0, 0);
    for (place, command) in lines() {
        if let Some(fault) = fault(&command) {
            panic!("{place}: {fault}: {:?}", command.words);
        }
        checked += 1;
        let arguments = &command.words[1..];
        let (name, rest) = HELP.command(arguments);
        if is_ours(&command) && is_harmless(&name, rest) {
            run(&site, arguments, &command, &place);
            ran += 1;
        } else if is_ours(&command) && name == "run" {
            // What the flags set must fit; the sources of the page are not here.
            let mut check = vec!["validate".to_owned(), rest[0].clone()];
            for pair in rest.windows(2).filter(|pair| pair[0] == "--set") {
                check.extend_from_slice(pair);
            }
            run(&site, &check, &command, &place);
            ran += 1;
        }
    }
    assert!(checked >= 40 && ran >= 15, "{checked} checked, {ran} ran");
}

#[test]
fn shell_lines_about_the_registry_run() {
    let site = Site::new();
    let mut ran = 0;
    for (place, mut command) in lines() {
        let arguments = command.words[1..].to_vec();
        if is_ours(&command)
            && matches!(
                &*HELP.command(&arguments).0,
                "schemas push" | "schemas check"
            )
        {
            for name in ["KAFKA_BROKERS", "REGISTRY_URL"] {
                command.variables.push((name.to_owned(), env(name)));
            }
            run(&site, &arguments, &command, &place);
            ran += 1;
        }
    }
    assert_eq!(ran, 2);
}

#[test]
fn wrong_lines_are_found() {
    let fault = |line: &str| {
        let commands = shell::commands(line);
        commands.iter().find_map(fault)
    };
    for line in [
        "opusflow run pipelines/first.yaml --linger 10m",
        "target/release/opusflow models pull owner/name --to models/name",
        "ops/setup --services",
        "ops/demo --set a.b=c",
        "ops/test cache",
    ] {
        assert_eq!(fault(line), None, "{line}");
    }
    for (line, what) in [
        ("opusflow rum pipelines/first.yaml", "no command `rum`"),
        ("opusflow models push x", "no command `push`"),
        (
            "opusflow run pipelines/first.yaml --lingers 1m",
            "no option `--lingers`",
        ),
        ("opusflow run pipelines/second.yaml", "no file"),
        ("ops/setup --service", "does not know `--service`"),
        ("ops/demo --sources x", "no option `--sources`"),
        ("frobnicate x", "no program"),
        ("ops/services/ReadAvro.java x", "not executable"),
    ] {
        let found = fault(line).unwrap_or_else(|| panic!("{line}: nothing is said"));
        assert!(found.contains(what), "{line}: {found}");
    }
}
