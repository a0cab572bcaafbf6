//! What a stage kind declares: its name, role, payloads, parameters and how it is built.

use std::sync::Arc;
use std::time::Duration;

use super::contract::{Sink, Source, Transform};
use super::deps::Deps;
use crate::Result;
use crate::config::{Field, Params};
use crate::packet::{Origin, PayloadKind, Stream};

/// One kind of stage, as `opusflow stages` lists it.
#[derive(Debug)]
pub struct StageKind {
    /// The word after `kind:`.
    pub name: &'static str,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
    /// Payloads it takes; empty for sources.
    pub accepts: &'static [PayloadKind],
    /// Payloads it gives; empty for sinks.
    pub emits: &'static [PayloadKind],
    /// The keys of `with:`.
    pub params: &'static [Field],
    /// Whether its inputs must be joined.
    pub joins: Joins,
    /// What is at its other end, as far as others must know.
    pub endpoint: Endpoint,
    /// How much of a stream it holds back before it emits.
    pub lookahead: fn(&Params) -> Lookahead,
    /// How it is built.
    pub build: Build,
}

/// What a source reads or a sink writes, as far as others must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Nothing that another part of a pipeline depends on.
    Other,
    /// Files that a user will look for.
    Files,
    /// Streams that do not wait.
    Live,
    /// Kafka: the pipeline needs brokers, and topics for what reaches the stage.
    Kafka,
}

/// Whether the inputs of a stage must be joined, and per what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// As the file says: joined, or merged as they come.
    AsWritten,
    /// Each call is about a packet of this kind; packets of another come only as what a `join` has
    /// collected for it.
    Per(PayloadKind),
    /// As `Per`, and without what was collected there is nothing to do.
    Always(PayloadKind),
    /// Each call is about a packet of `alone`; or, where a `join` collects those, about one of
    /// `per` with what was collected for it.
    Either {
        /// What each call is about where nothing is joined, and what a join must collect.
        alone: PayloadKind,
        /// What each call is about where a join collects.
        per: PayloadKind,
    },
    /// As the network is that the parameter `model` names, by the classes of its architecture.
    ByModel(&'static [(&'static [&'static str], Joins)]),
}

impl Joins {
    /// What it comes to with a model of this architecture. A network that is not listed, or is not
    /// known, asks for nothing here: it is refused elsewhere.
    pub fn with(self, architecture: Option<&str>) -> Self {
        match self {
            Joins::ByModel(networks) => networks
                .iter()
                .find(|(classes, _)| architecture.is_some_and(|class| classes.contains(&class)))
                .map_or(Joins::AsWritten, |(_, joins)| *joins),
            joins => joins,
        }
    }

    /// What each call is about where a join collects, if that is declared.
    pub const fn per(self) -> Option<PayloadKind> {
        match self {
            Joins::AsWritten | Joins::ByModel(_) => None,
            Joins::Per(payload) | Joins::Always(payload) | Joins::Either { per: payload, .. } => {
                Some(payload)
            }
        }
    }
}

/// How much of a stream a stage holds back before it emits what it made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lookahead {
    /// The longest span it emits.
    pub longest: Duration,
    /// Frames of look-ahead that its model needs.
    pub frames: u32,
}

impl Lookahead {
    /// For stages that answer each packet at once.
    pub fn none(_: &Params) -> Self {
        Self::default()
    }
}

/// What a stage is built from.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The stage's id, kind, pipeline and parameter digest.
    pub origin: &'a Arc<Origin>,
    /// The checked keys of `with:`.
    pub params: &'a Params,
    /// What is shared by all stages.
    pub deps: &'a Arc<Deps>,
}

/// Opens a transform for one stream.
pub type OpenTransform = Box<dyn Fn(&Arc<Stream>) -> Arc<dyn Transform> + Send + Sync>;

/// How a kind is built. The variant is its role, and of a transform also says two things that the
/// runner goes by: a *stateful* one has an instance for each stream and is never given an input
/// twice; a *sequential* one is called with one packet at a time, whatever `concurrency` says.
#[derive(Debug, Clone, Copy)]
pub enum Build {
    /// It opens streams and pushes packets.
    Source(fn(&Context<'_>) -> Result<Arc<dyn Source>>),
    /// A transform without state: one instance for all streams, several packets at a time.
    Stateless(fn(&Context<'_>) -> Result<Arc<dyn Transform>>),
    /// A stateful transform that gathers windows of its inputs, several packets at a time. What it
    /// keeps of an input it takes in before its first wait.
    Windowed(fn(&Context<'_>) -> Result<OpenTransform>),
    /// A stateful transform whose state depends on the answers to its earlier calls: sequential.
    Sequential(fn(&Context<'_>) -> Result<OpenTransform>),
    /// It delivers records.
    Sink(fn(&Context<'_>) -> Result<Arc<dyn Sink>>),
}

/// What a stage is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Pushes packets.
    Source,
    /// A packet in, packets out.
    Transform,
    /// Delivers.
    Sink,
}

impl Role {
    /// The word in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
        }
    }
}

impl StageKind {
    /// Its role.
    pub fn role(&self) -> Role {
        match self.build {
            Build::Source(_) => Role::Source,
            Build::Stateless(_) | Build::Windowed(_) | Build::Sequential(_) => Role::Transform,
            Build::Sink(_) => Role::Sink,
        }
    }

    /// What a stage of this kind with these keys of `with:` gives, or one of its views: a view is
    /// of pictures or of sound.
    pub fn gives(&self, params: &Params, view: Option<&str>) -> &'static [PayloadKind] {
        match view.and_then(|view| self.view(params, view)) {
            Some(view) if view.opt_duration("audio").is_some() => &[PayloadKind::Audio],
            Some(_) => &[PayloadKind::Frame],
            None => self.emits,
        }
    }

    /// The keys of a view, where this is a source with views.
    pub fn view<'a>(&self, params: &'a Params, name: &str) -> Option<&'a Params> {
        let has_views = self.params.iter().any(|field| field.name == "views");
        let (_, view) = has_views
            .then(|| params.opt_map("views"))??
            .iter()
            .find(|(view, _)| view == name)?;
        view.as_object()
    }

    /// Whether it keeps something of its inputs from call to call, so that none may be given to it
    /// twice.
    pub(crate) fn is_stateful(&self) -> bool {
        matches!(self.build, Build::Windowed(_) | Build::Sequential(_))
    }

    /// Whether it is stateful and still works on several inputs at a time.
    pub(crate) fn is_windowed(&self) -> bool {
        matches!(self.build, Build::Windowed(_))
    }

    /// Whether it works on one input at a time.
    pub(crate) fn is_sequential(&self) -> bool {
        matches!(self.build, Build::Sequential(_))
    }
}
