//! The one error of the crate. Its kind says who must act on it, its message what failed and on
//! what, its hint what to do.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What every fallible function of the crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The author of the pipeline's YAML or of the command line.
    Config,
    /// Nobody: the system is loaded and the same call may pass later.
    Overload,
    /// The operator of something outside: a broker, a store, a network, a disk, a video source.
    External,
    /// The owner of the model or of the data given to it.
    Model,
    /// The developers of opusflow.
    Bug,
}

impl Kind {
    /// The word used in logs, metrics and dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Config => "config",
            Kind::Overload => "overload",
            Kind::External => "external",
            Kind::Model => "model",
            Kind::Bug => "bug",
        }
    }
}

/// An error: kind, message, and where known a hint and the cause.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what failed and on what, lowercase, without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// The YAML or the command line must change.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// Too much at once; the same call may pass later.
    pub fn overload(message: impl Into<String>) -> Self {
        Self::new(Kind::Overload, message)
    }

    /// Something outside failed: a broker, a store, a network, a disk, a video source.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(Kind::External, message)
    }

    /// A model's weights, or what was given to it, do not fit.
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    /// An invariant of ours does not hold.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// A file or folder that cannot be written: external, with the hint that fits what the system
    /// said. `setting` names what chose the place.
    pub fn unwritable(path: &Path, error: io::Error, setting: &str) -> Self {
        use io::ErrorKind::{
            NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
            StorageFull,
        };
        let hint = match error.kind() {
            StorageFull | QuotaExceeded => {
                format!("free some space there, or give {setting} another disk")
            }
            PermissionDenied | ReadOnlyFilesystem => {
                format!("give this user the right to write there, or {setting} another folder")
            }
            NotFound => format!("nothing can be made there: give {setting} another folder"),
            NotADirectory => format!(
                "a file stands where a folder is needed: move it, or give {setting} another folder"
            ),
            _ => format!("check that {setting} names a place that can be written"),
        };
        Self::external(format!("cannot write {}", path.display()))
            .because(error)
            .hint(hint)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Puts `context` in front of the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Who must act.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What failed and on what, without cause and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, where known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may pass when repeated.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, Kind::Overload | Kind::External)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = self
            .0
            .source
            .as_deref()
            .map(|s| s as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} error: {self}", self.0.kind.as_str())
    }
}

// The cause is already part of the message, so `source` stays empty: a reporter that walks the
// chain would print it twice.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_cause_and_hint_once() {
        let io = std::io::Error::other("disk full");
        let error = Error::external("cannot write out/x.json")
            .because(io)
            .hint("free some space");
        assert_eq!(
            error.to_string(),
            "cannot write out/x.json: disk full (free some space)"
        );
        assert!(error.is_transient());
        assert!(!Error::config("x").is_transient());
    }

    #[test]
    fn hints_about_unwritable_places_fit_what_the_system_said() {
        let said = |kind: io::ErrorKind| {
            Error::unwritable(Path::new("out/x"), kind.into(), "`objects.store`").to_string()
        };
        assert!(
            said(io::ErrorKind::StorageFull)
                .contains("(free some space there, or give `objects.store` another disk)")
        );
        assert!(said(io::ErrorKind::PermissionDenied).contains("the right to write there"));
        for kind in [
            io::ErrorKind::NotFound,
            io::ErrorKind::NotADirectory,
            io::ErrorKind::BrokenPipe,
        ] {
            assert!(
                said(kind).contains("cannot write out/x")
                    && !said(kind).contains("free some space"),
                "{kind}"
            );
        }
    }
}
