//! Tokens to words: at spaces where a language has them, with their punctuation. After Whisper's
//! and transformers' `_combine_tokens_into_words`.

use std::ops::Range;

use crate::error::Result;
use crate::models::text::Tokenizer;

/// Languages that put no spaces between words.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];
/// Punctuation that belongs to the word after it.
const OPENING: &str = "\"'“¡¿([{-";
/// Punctuation that belongs to the word before it.
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";

/// Punctuation that stands for itself.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// A word and the places of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub tokens: Range<usize>,
}

/// The words of a text of a language.
pub(super) fn words(tokenizer: &Tokenizer, tokens: &[u32], language: &str) -> Result<Vec<Word>> {
    let characters = characters(tokenizer, tokens)?;
    let words = if UNSPACED.contains(&language) {
        characters
    } else {
        at_spaces(characters)
    };
    Ok(close(open(words)))
}

/// The shortest runs of tokens that are whole characters.
fn characters(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<Word>> {
    let whole = tokenizer.decode_lossy(tokens)?;
    let (mut runs, mut begin, mut offset) = (Vec::new(), 0, 0);
    for end in 1..=tokens.len() {
        let text = tokenizer.decode_lossy(&tokens[begin..end])?;
        // A replacement character that the whole text has too is no cut character.
        let cut = text
            .find(char::REPLACEMENT_CHARACTER)
            .and_then(|at| whole.get(offset + at..)?.chars().next());
        if cut.is_none_or(|there| there == char::REPLACEMENT_CHARACTER) {
            offset += text.len();
            runs.push(Word {
                text,
                tokens: begin..end,
            });
            begin = end;
        }
    }
    Ok(runs)
}

fn at_spaces(runs: Vec<Word>) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for run in runs {
        match words.last_mut() {
            Some(last) if !run.text.starts_with(' ') && !PUNCTUATION.contains(run.text.trim()) => {
                last.append(run)
            }
            _ => words.push(run),
        }
    }
    words
}

/// Gives punctuation that opens to the word after it.
fn open(words: Vec<Word>) -> Vec<Word> {
    let mut opened: Vec<Word> = Vec::new();
    for word in words.into_iter().rev() {
        match opened.last_mut() {
            Some(next) if word.text.starts_with(' ') && OPENING.contains(word.text.trim()) => {
                let mut joined = word;
                joined.append(std::mem::replace(
                    next,
                    Word {
                        text: String::new(),
                        tokens: 0..0,
                    },
                ));
                *next = joined;
            }
            _ => opened.push(word),
        }
    }
    opened.reverse();
    opened
}

/// Gives punctuation that closes to the word before it.
fn close(words: Vec<Word>) -> Vec<Word> {
    let mut closed: Vec<Word> = Vec::new();
    for word in words {
        match closed.last_mut() {
            Some(last) if !last.text.ends_with(' ') && CLOSING.contains(word.text.as_str()) => {
                last.append(word)
            }
            _ => closed.push(word),
        }
    }
    closed
}

impl Word {
    fn append(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.tokens.end = next.tokens.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(texts: &[&str]) -> Vec<String> {
        let runs = texts
            .iter()
            .enumerate()
            .map(|(n, text)| Word {
                text: (*text).to_owned(),
                tokens: n..n + 1,
            })
            .collect();
        let words = close(open(at_spaces(runs)));
        assert!(
            words
                .windows(2)
                .all(|pair| pair[0].tokens.end == pair[1].tokens.start)
        );
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_have_their_punctuation() {
        assert_eq!(
            words_of(&[
                " Wan", "na", " work", " \"", "to", "gether", "\"", "?", " Yes", "."
            ]),
            [" Wanna", " work", " \"together\"?", " Yes."]
        );
        assert_eq!(
            words_of(&[" don", "'t", " (", "never", ")", "."]),
            [" don't", " (never)."]
        );
        assert_eq!(words_of(&["\"", " so"]), ["\"", " so"]);
        assert_eq!(words_of(&[]), [""; 0]);
    }
}
