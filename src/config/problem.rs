//! Problems of a configuration: all of them are collected, each with its place, and shown with
//! file, line, column and snippet.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

use super::source_text::{Place, SourceText};
use crate::Error;

/// One thing that must change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    message: String,
    place: Option<Place>,
    label: Option<String>,
    help: Option<String>,
}

impl Problem {
    /// Words put under the marked text.
    pub fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(label.into());
        self
    }

    /// What to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Offers the nearest of `known`, or lists them when none is near.
    pub fn suggest<'a>(
        &mut self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(word, &known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None if known.is_empty() => self,
            None => self.help(format!("known: {}", known.join(", "))),
        }
    }
}

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    let scored = known.iter().map(|candidate| {
        (
            strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()),
            *candidate,
        )
    });
    let (distance, near) = scored.min_by_key(|(distance, _)| *distance)?;
    let allowed = wanted.chars().count().max(near.chars().count()).div_ceil(3);
    (distance <= allowed && distance < near.chars().count()).then_some(near)
}

/// How problems are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportStyle {
    /// With colours and lines, for terminals.
    Fancy,
    /// Without colours, for logs.
    Plain,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    sources: Vec<SourceText>,
    found: Vec<Problem>,
    hidden: Vec<Place>,
}

impl Problems {
    /// No problems yet, of a file.
    pub fn new(source: &SourceText) -> Self {
        Self {
            sources: vec![source.clone()],
            found: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// Adds a further source; its number goes into places.
    pub fn add_source(&mut self, source: SourceText) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// The sources by number.
    pub fn sources(&self) -> &[SourceText] {
        &self.sources
    }

    /// Adds a problem. `message` says what is wrong, lowercase, without a full stop.
    pub fn add(
        &mut self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
    ) -> &mut Problem {
        let at = self.found.len();
        self.found.push(Problem {
            message: message.into(),
            place: place.into(),
            label: None,
            help: None,
        });
        &mut self.found[at]
    }

    /// Never shows the text at `place`.
    pub fn hide(&mut self, place: Place) {
        self.hidden.push(place);
    }

    /// How many were added.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The line (from 1) of a place.
    pub fn line(&self, place: Place) -> usize {
        self.sources[place.source].position(place.start).0
    }

    /// Each problem on one line, in the order of the file: `file.yaml:12:9: what is wrong (what to
    /// do)`.
    pub fn lines(&self) -> Vec<String> {
        self.sorted()
            .into_iter()
            .map(|problem| self.line_of(problem))
            .collect()
    }

    /// All problems with their snippets.
    pub fn render(&self, style: ReportStyle) -> String {
        let theme = match style {
            ReportStyle::Fancy => GraphicalTheme::unicode(),
            ReportStyle::Plain => GraphicalTheme::none(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(120)
            .with_context_lines(1);
        let texts: Vec<NamedSource<String>> = (0..self.sources.len())
            .map(|number| NamedSource::new(self.sources[number].name(), self.masked(number)))
            .collect();
        let mut out = String::new();
        for problem in self.sorted() {
            let report = Report {
                problem,
                text: problem.place.map(|place| &texts[place.source]),
            };
            // Writing into a string fails only where a span lies outside its text: then the line
            // says it all.
            if handler.render_report(&mut out, &report).is_err() {
                out.push_str(&self.line_of(problem));
            }
            out.push('\n');
        }
        out
    }

    fn sorted(&self) -> Vec<&Problem> {
        let mut sorted: Vec<&Problem> = self.found.iter().collect();
        sorted.sort_by_key(|problem| problem.place.map(|place| (place.source, place.start)));
        sorted.dedup();
        sorted
    }

    fn line_of(&self, problem: &Problem) -> String {
        let mut line = String::new();
        if let Some(place) = problem.place {
            let source = &self.sources[place.source];
            let (row, column) = source.position(place.start);
            line = format!("{}:{row}:{column}: ", source.name());
        } else if let Some(file) = self.sources.first() {
            line = format!("{}: ", file.name());
        }
        line.push_str(&problem.message);
        if let Some(help) = &problem.help {
            line.push_str(&format!(" ({help})"));
        }
        line
    }

    fn masked(&self, number: usize) -> String {
        let mut text = self.sources[number].text().to_owned();
        for place in self.hidden.iter().filter(|place| place.source == number) {
            let stars: String = text[place.start..place.end]
                .bytes()
                .map(|byte| if byte == b'\n' { '\n' } else { '*' })
                .collect();
            text.replace_range(place.start..place.end, &stars);
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Error::config(problems.to_string())
    }
}

struct Report<'a> {
    problem: &'a Problem,
    text: Option<&'a NamedSource<String>>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem
            .help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.text.map(|text| text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.problem.place?;
        let span = LabeledSpan::new(
            self.problem.label.clone(),
            place.start,
            place.end - place.start,
        );
        Some(Box::new(std::iter::once(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems() -> Problems {
        let mut problems = Problems::new(&SourceText::new(
            "x.yaml",
            "a: 1\npassword: hunter2\ntreshold: 3\n",
        ));
        problems
            .add(
                Place {
                    source: 0,
                    start: 23,
                    end: 31,
                },
                "unknown key `treshold`",
            )
            .suggest("treshold", ["threshold", "model"]);
        problems
            .add(
                Place {
                    source: 0,
                    start: 3,
                    end: 4,
                },
                "`a` is wrong",
            )
            .label("here");
        problems.hide(Place {
            source: 0,
            start: 15,
            end: 22,
        });
        problems
    }

    #[test]
    fn lines_are_in_the_order_of_the_file() {
        let expected = [
            "x.yaml:1:4: `a` is wrong",
            "x.yaml:3:1: unknown key `treshold` (did you mean `threshold`?)",
        ];
        assert_eq!(problems().lines(), expected);
        assert_eq!(Error::from(problems()).kind(), crate::error::Kind::Config);
    }

    #[test]
    fn snippets_show_the_place_but_no_secret() {
        let plain = problems().render(ReportStyle::Plain);
        assert!(
            plain.contains("treshold: 3")
                && plain.contains("x.yaml:3:1")
                && plain.contains("did you mean"),
            "{plain}"
        );
        assert!(
            plain.contains("password: *******") && !plain.contains("hunter2"),
            "{plain}"
        );
        assert!(!plain.contains('\u{1b}'));
        assert!(problems().render(ReportStyle::Fancy).contains('\u{1b}'));
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(
            nearest("treshold", &["threshold", "model"]),
            Some("threshold")
        );
        assert_eq!(nearest("kafak", &["file", "kafka"]), Some("kafka"));
        assert_eq!(nearest("banana", &["threshold", "model"]), None);
        assert_eq!(nearest("x", &["id"]), None);
    }
}
