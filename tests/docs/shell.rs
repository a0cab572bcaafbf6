//! As much of the shell's grammar as the pages use.

/// A simple command: what it sets, and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub variables: Vec<(String, String)>,
    pub words: Vec<String>,
}

/// The words of a line; a comment ends it. Redirections, pipes and `&&` are words of their own.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut begun) = (String::new(), false);
    let mut quote = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.push(letter),
            ('"' | '\'', None) => (quote, begun) = (Some(letter), true),
            ('#', None) if !begun => break,
            (letter, None) if letter.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            ('\\', None) => {
                word.extend(letters.next());
                begun = true;
            }
            (letter, None) => {
                word.push(letter);
                begun = true;
            }
        }
    }
    assert!(quote.is_none(), "a quote is never closed: {line}");
    if begun {
        words.push(word);
    }
    words
}

/// The commands of a block of shell lines.
pub(super) fn commands(text: &str) -> Vec<Command> {
    let joined = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in joined.lines() {
        let mut words = split(line);
        // What is written where is not looked at.
        if let Some(at) = words.iter().position(|word| word == ">") {
            words.drain(at..(at + 2).min(words.len()));
        }
        for part in words.split(|word| matches!(word.as_str(), "&&" | "|")) {
            let is_variable = |word: &&String| {
                word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                })
            };
            let variables: Vec<_> = part.iter().take_while(is_variable).collect();
            let command = Command {
                words: part[variables.len()..].to_vec(),
                variables: variables
                    .iter()
                    .filter_map(|word| word.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            };
            if !command.words.is_empty() {
                found.push(command);
            }
        }
    }
    found
}

#[test]
fn lines_are_cut_as_a_shell_cuts_them() {
    let found = commands(
        "A=1 B='x y' ops/demo --set 'a=b c' \\\n  --linger 1s   # why\n# only why\nopusflow config schema > /tmp/x && ls",
    );
    let words: Vec<Vec<&str>> = found
        .iter()
        .map(|command| command.words.iter().map(String::as_str).collect())
        .collect();
    assert_eq!(
        words,
        [
            vec!["ops/demo", "--set", "a=b c", "--linger", "1s"],
            vec!["opusflow", "config", "schema"],
            vec!["ls"]
        ]
    );
    assert_eq!(
        found[0].variables,
        [("A".into(), "1".into()), ("B".into(), "x y".into())]
    );
}
