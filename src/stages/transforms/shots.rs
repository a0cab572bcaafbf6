//! `shots`: cuts a stream into shots by TransNetV2. Frames go in at their native rate, segments
//! come out; a gap closes the open one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{Requester, ShotsModel};
use crate::models::networks;
use crate::models::scenes::{Transition, Transitions, WINDOW, Window, Windows};
use crate::packet::{Cut, Frame, Nanos, Payload, PayloadKind, Segment, Span};
use crate::stage::{
    Build, Context, Emitter, Endpoint, Flush, Held, Input, Joins, Lookahead, OpenTransform,
    PacketDraft, StageKind, Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "shots",
    doc: "Cuts a stream into shots: a segment from one transition to the next. Wants every frame \
          (`fps: native`) at 48x27.",
    accepts: &[PayloadKind::Frame],
    emits: &[PayloadKind::Segment],
    params: &[
        Field {
            name: "model",
            ty: Type::Model(networks::SHOT_DETECTORS),
            default: Default::Required,
            doc: "The model that finds transitions.",
        },
        Field {
            name: "threshold",
            ty: Type::Float(0.0, 1.0),
            default: Default::Is("0.5"),
            doc: "A frame whose probability lies above is in a transition. Lower finds more cuts.",
        },
        Field {
            name: "max_length",
            ty: Type::Duration,
            default: Default::Is("15s"),
            doc: "A segment that reaches this length is closed.",
        },
        Field {
            name: "on_gap",
            ty: Type::Choice(&["close", "bridge"]),
            default: Default::Is("close"),
            doc: "What missing frames do to the open segment: `close` ends it and begins the \
                  model's window again, `bridge` goes on as if none were missing.",
        },
        Field {
            name: "max_gap",
            ty: Type::Duration,
            default: Default::Is("500ms"),
            doc: "With `on_gap: close`: frames missing for less than this are bridged.",
        },
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead,
    build: Build::Sequential(build),
};

fn lookahead(params: &Params) -> Lookahead {
    Lookahead {
        longest: params.duration("max_length"),
        frames: WINDOW as u32,
    }
}

fn build(context: &Context<'_>) -> Result<OpenTransform> {
    let params = context.params;
    let settings = Settings {
        model: context.deps.models.shots(params.text("model"))?,
        threshold: params.float("threshold") as f32,
        max_length: nanos(params.duration("max_length")),
        max_gap: (&**params.text("on_gap") == "close").then(|| nanos(params.duration("max_gap"))),
    };
    let settings = Arc::new(settings);
    Ok(Box::new(move |stream| {
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        let cutter = Cutter::new(settings.threshold, settings.max_length);
        let state = Mutex::new(State {
            cutter,
            windows: Windows::new(),
            waiting: VecDeque::new(),
            last: None,
        });
        Arc::new(Shots {
            settings: Arc::clone(&settings),
            requester,
            state,
            floor: parking_lot::Mutex::new(None),
        })
    }))
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Settings {
    model: ShotsModel,
    threshold: f32,
    max_length: Nanos,
    max_gap: Option<Nanos>,
}

struct Shots {
    settings: Arc<Settings>,
    requester: Requester,
    state: Mutex<State>,
    /// Start of the earliest frame that has left in no segment yet.
    floor: parking_lot::Mutex<Option<Nanos>>,
}

struct State {
    cutter: Cutter,
    windows: Windows<Arc<Frame>>,
    /// Frames that no window has answered for yet.
    waiting: VecDeque<(Span, Held)>,
    last: Option<Span>,
}

#[async_trait]
impl Transform for Shots {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let mut state = self.state.lock().await;
        let (span, held) = (input.head.span, input.hold());
        let Payload::Frame(frame) = input.payload else {
            return Err(Error::bug("shots takes frames"));
        };
        let missing = state
            .last
            .map_or(0, |last| span.start.saturating_sub(last.end));
        let mut result = Ok(());
        if self.settings.max_gap.is_some_and(|most| missing > most) {
            result = self.close(&mut state, Cut::Gap, out).await;
        }
        state.last = Some(span);
        state.waiting.push_back((span, held));
        if let Some(window) = state.windows.push(frame) {
            result = result.and(self.ask(&mut state, window, out).await);
        }
        self.note_floor(&state);
        result
    }

    async fn flush(&self, why: Flush, out: &mut Emitter) -> Result<()> {
        let mut state = self.state.lock().await;
        let cut = if why == Flush::Gap {
            Cut::Gap
        } else {
            Cut::End
        };
        let result = self.close(&mut state, cut, out).await;
        state.cutter.number = 0;
        state.last = None;
        self.note_floor(&state);
        result
    }

    fn watermark(&self, incoming: Nanos) -> Nanos {
        self.floor
            .lock()
            .map_or(incoming, |floor| floor.min(incoming))
    }
}

impl Shots {
    fn note_floor(&self, state: &State) {
        let first = state
            .cutter
            .open
            .front()
            .map(|(span, _)| span.start)
            .or_else(|| state.waiting.front().map(|(span, _)| span.start));
        *self.floor.lock() = first;
    }

    /// Asks the model about a window and cuts by its answer. Without an answer the frames count as
    /// inside a shot, so that they are not lost.
    async fn ask(
        &self,
        state: &mut State,
        window: Window<Arc<Frame>>,
        out: &mut Emitter,
    ) -> Result<()> {
        let answers = window.answers();
        let asked = self
            .settings
            .model
            .ask(window.frames, self.requester.clone())
            .await;
        let (probabilities, result) = match asked {
            Ok(predictions) => (
                predictions.get(answers.clone()).map(<[f32]>::to_vec),
                Ok(()),
            ),
            Err(error) => (None, Err(error)),
        };
        let probabilities = probabilities.unwrap_or_else(|| vec![0.0; answers.len()]);
        for probability in probabilities {
            let Some((span, held)) = state.waiting.pop_front() else {
                break;
            };
            for segment in state.cutter.push(span, held, probability) {
                self.emit(segment, out);
            }
        }
        result
    }

    /// Answers what is open, and closes the open segment by `cut`.
    async fn close(&self, state: &mut State, cut: Cut, out: &mut Emitter) -> Result<()> {
        let mut result = Ok(());
        for window in state.windows.finish() {
            result = result.and(self.ask(state, window, out).await);
        }
        for segment in state.cutter.finish(cut) {
            self.emit(segment, out);
        }
        result
    }

    fn emit(&self, closed: Closed, out: &mut Emitter) {
        let segment = Segment {
            index: closed.number,
            cut: closed.cut,
            confidence: closed.confidence,
            frames: closed.held.len() as u64,
        };
        let draft = PacketDraft::new(Payload::Segment(Arc::new(segment)), closed.span);
        out.emit(draft.by(self.settings.model.tag()).holding(closed.held));
    }
}

/// Gathers answered frames into segments.
struct Cutter {
    transitions: Transitions,
    max_length: Nanos,
    open: VecDeque<(Span, Held)>,
    /// Number in the stream of the first of `open`.
    first: u64,
    /// Number of the next segment.
    number: u64,
}

/// A segment that is complete.
struct Closed {
    number: u64,
    span: Span,
    cut: Cut,
    confidence: f32,
    held: Vec<Held>,
}

impl Cutter {
    fn new(threshold: f32, max_length: Nanos) -> Self {
        Self {
            transitions: Transitions::new(threshold),
            max_length,
            open: VecDeque::new(),
            first: 0,
            number: 0,
        }
    }

    /// Takes the next answered frame and gives the segments that end before it.
    fn push(&mut self, span: Span, held: Held, probability: f32) -> Vec<Closed> {
        let mut closed = Vec::new();
        if let Some(transition) = self.transitions.push(probability) {
            closed.extend(self.cut_after(transition, Some(span)));
        }
        // A frame that would make the segment too long begins the next.
        if self
            .open
            .front()
            .is_some_and(|(first, _)| span.end.saturating_sub(first.start) > self.max_length)
        {
            closed.extend(self.close(self.open.len(), Cut::MaxLength, 1.0, Some(span)));
        }
        self.open.push_back((span, held));
        closed
    }

    /// Nothing more will come before the next epoch.
    fn finish(&mut self, cut: Cut) -> Vec<Closed> {
        let mut closed = Vec::new();
        if let Some(transition) = self.transitions.finish() {
            closed.extend(self.cut_after(transition, None));
        }
        closed.extend(self.close(self.open.len(), cut, 1.0, None));
        self.first = 0;
        closed
    }

    fn cut_after(&mut self, transition: Transition, next: Option<Span>) -> Option<Closed> {
        let frames = (transition.last + 1).saturating_sub(self.first) as usize;
        let cut = if transition.frames() <= 2 {
            Cut::Hard
        } else {
            Cut::Gradual
        };
        self.close(
            frames.min(self.open.len()),
            cut,
            transition.confidence,
            next,
        )
    }

    /// Closes a segment of the first `frames` of the open ones; `next` is the frame that follows
    /// the last of them all.
    fn close(
        &mut self,
        frames: usize,
        cut: Cut,
        confidence: f32,
        next: Option<Span>,
    ) -> Option<Closed> {
        let held: Vec<(Span, Held)> = self.open.drain(..frames).collect();
        self.first += frames as u64;
        let (start, end) = (held.first()?.0.start, held.last()?.0.end);
        let following = self.open.front().map(|(span, _)| *span).or(next);
        let number = self.number;
        self.number += 1;
        let span = Span::new(start, following.map_or(end, |following| following.start));
        Some(Closed {
            number,
            span,
            cut,
            confidence,
            held: held.into_iter().map(|(_, held)| held).collect(),
        })
    }
}
