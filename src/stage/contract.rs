//! The three roles a stage can have. The runner owns channels, retries, timeouts, panics, metrics,
//! receipts, order and shutdown; an author sees inputs and emits drafts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::packet::{
    Audio, Event, Frame, Head, Micros, ModelTag, Nanos, Outcome, Packet, Payload, PayloadKind,
    Reason, Receipt, RecordId, Span, Stream,
};

/// Opens streams and pushes their frames.
#[async_trait]
pub trait Source: Send + Sync {
    /// Runs until its streams have ended or `stop` is told. Each stream gets a session from `host`
    /// and feeds it.
    ///
    /// # Errors
    /// What keeps the source as a whole from going on; what ends one stream is said to its feed.
    async fn run(&self, host: Arc<dyn Host>, stop: CancellationToken) -> Result<()>;
}

/// Gives sessions to sources.
#[async_trait]
pub trait Host: Send + Sync {
    /// Begins a session: the stages behind the source are started for this stream.
    ///
    /// # Errors
    /// When the pipeline is shutting down.
    async fn open(&self, stream: Stream) -> Result<Arc<dyn Feed>>;
}

/// Where a source pushes one stream into.
#[async_trait]
pub trait Feed: Send + Sync {
    /// Begins an epoch: `base` is the wall clock at its pts 0. After the first, it tells every view
    /// of a gap.
    async fn epoch(&self, epoch: u64, base: Micros);

    /// Pushes a frame into the queues that read its view. Waits while one of them is full and
    /// blocks.
    async fn frame(&self, frame: Frame, span: Span, arrived: Micros);

    /// Pushes a piece of sound, as [`frame`](Self::frame) does.
    async fn audio(&self, audio: Audio, span: Span, arrived: Micros);

    /// Says that nothing more comes in a view, while others go on.
    async fn end(&self, view: &str);

    /// Emits an event into the sinks.
    async fn event(&self, event: Event);

    /// Ends the stream: what is under way is drained, then the `ended` event follows with this
    /// reason.
    async fn finish(&self, reason: String);

    /// Says how long the stream will be, in nanoseconds, where that is known.
    fn length(&self, nanos: Nanos);

    /// Notes frames that the decoder could not give, by the decoder's count, for the session's
    /// summary.
    fn lost(&self, frames: u64);
}

/// A packet in, packets out.
#[async_trait]
pub trait Transform: Send + Sync {
    /// Takes one input and emits what it makes of it. A kind built by `Build::Transform` or
    /// `Build::Windowed` is asked concurrently, one built by `Build::Stateful` a packet at a time.
    /// Calls begin in the order of the inputs, and each runs to its first wait before the next
    /// begins.
    ///
    /// # Errors
    /// One that may pass is tried again as `retry` says; any other sends the input to the dead
    /// letters, and its neighbours go on.
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()>;

    /// Emits what is still open.
    ///
    /// # Errors
    /// As `process`.
    async fn flush(&self, _why: Flush, _out: &mut Emitter) -> Result<()> {
        Ok(())
    }

    /// The earliest pts it may still emit, data that its input will not go below `incoming`.
    fn watermark(&self, incoming: Nanos) -> Nanos {
        incoming
    }
}

/// Why a transform is asked to emit what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// The stream broke off; another epoch follows.
    Gap,
    /// The stream ended.
    End,
}

/// Delivers records.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Delivers a batch of one stream and reports each packet's outcome, in order. Waits while the
    /// other side cannot take more.
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>>;

    /// Where records of `kind` go, for the session's summary: a topic, a folder.
    fn destination(&self, kind: PayloadKind) -> String {
        kind.plural().to_owned()
    }

    /// A stream ended and all its packets were delivered: what is kept open for it is closed.
    ///
    /// # Errors
    /// When what was delivered cannot be made durable.
    async fn finish(&self, _stream: &Arc<Stream>) -> Result<()> {
        Ok(())
    }

    /// The pipeline ends.
    ///
    /// # Errors
    /// As `finish`.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// What a transform is data: one packet, and with a `join` the packets collected for it.
#[derive(Debug)]
pub struct Input<'a> {
    /// Stream, times and origin.
    pub head: &'a Arc<Head>,
    /// What it carries.
    pub payload: Payload,
    /// With a `join`: the packets of the collected sides inside its span, by pts.
    pub collected: Vec<(Arc<Head>, Payload)>,
    /// With a `join`: whether a collected side had not caught up in time.
    pub partial: bool,
    /// The in_flight on the frames behind it, for stages that emit later: one that keeps none says that
    /// nothing more will come of them here.
    pub held: InputRef<'a>,
}

impl Input<'_> {
    /// The id of the packet it came as.
    pub fn id(&self) -> RecordId {
        self.head.id(self.payload.kind())
    }
}

/// An input on its way to a transform, as the runner holds it.
#[derive(Debug)]
pub struct PendingInput {
    /// The in_flight on the frames behind it.
    pub(crate) in_flight: InFlight,
    /// What the transform is data, once for each try.
    pub(crate) data: InputData,
}

/// What an input carries.
#[derive(Debug, Clone)]
pub(crate) struct InputData {
    pub payload: Payload,
    pub collected: Vec<(Arc<Head>, Payload)>,
    pub partial: bool,
}

impl PendingInput {
    /// Takes a packet apart.
    pub fn new(packet: Packet, collected: Vec<Packet>, partial: bool) -> Self {
        let (mut receipt, mut gathered) = (packet.receipt, Vec::with_capacity(collected.len()));
        if !collected.is_empty() {
            let mut receipts = Vec::with_capacity(collected.len() + 1);
            receipts.push(receipt);
            for packet in collected {
                receipts.push(packet.receipt);
                gathered.push((packet.head, packet.payload));
            }
            receipt = Receipt::join(receipts);
        }
        Self {
            in_flight: InFlight {
                head: packet.head,
                receipt,
            },
            data: InputData {
                payload: packet.payload,
                collected: gathered,
                partial,
            },
        }
    }
}

impl InputData {
    /// For one call.
    pub fn under<'a>(self, in_flight: &'a InFlight, drop_policy: &'a DropPolicy) -> Input<'a> {
        let Self {
            payload,
            collected,
            partial,
        } = self;
        Input {
            head: &in_flight.head,
            payload,
            collected,
            partial,
            held: InputRef {
                in_flight,
                drop_policy,
            },
        }
    }
}

/// The runner's in_flight on the frames behind an input. It says itself what became of them: falling,
/// they are lost in the shutdown.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub head: Arc<Head>,
    receipt: Receipt,
}

impl InFlight {
    pub fn split(&self) -> Self {
        Self {
            head: Arc::clone(&self.head),
            receipt: self.receipt.split(),
        }
    }

    pub fn settle(mut self, outcome: Outcome) {
        self.take().settle(outcome);
    }

    pub fn into_receipt(mut self) -> Receipt {
        self.take()
    }

    fn take(&mut self) -> Receipt {
        std::mem::replace(&mut self.receipt, Receipt::none())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.take().settle(Outcome::Dropped(Reason::Shutdown));
    }
}

/// The runner's in_flight on an input, as a stage is lent it.
#[derive(Debug, Clone, Copy)]
pub struct InputRef<'a> {
    in_flight: &'a InFlight,
    drop_policy: &'a DropPolicy,
}

impl InputRef<'_> {
    /// A in_flight to keep.
    #[must_use]
    pub fn split(&self) -> Held {
        let InFlight { head, receipt } = self.in_flight;
        Held {
            head: Arc::clone(head),
            receipt: receipt.split(),
            drop_policy: self.drop_policy.clone(),
        }
    }
}

/// What becomes of the inputs that a stage still holds when it goes: absorbed as a rule, lost when
/// the shutdown's deadline has passed.
#[derive(Debug, Clone, Default)]
pub struct DropPolicy(Arc<AtomicBool>);

impl DropPolicy {
    /// From now on, what falls is lost in the shutdown.
    pub fn abandon(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn outcome(&self) -> Outcome {
        if self.0.load(Ordering::Acquire) {
            Outcome::Dropped(Reason::Shutdown)
        } else {
            Outcome::Absorbed
        }
    }
}

/// A in_flight on the frames behind an input, for stages that emit later what they made of it. Pixels
/// are not held.
pub struct Held {
    head: Arc<Head>,
    receipt: Receipt,
    drop_policy: DropPolicy,
}

impl Held {
    /// The input's head.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// A further in_flight on the same.
    #[must_use]
    pub fn split(&self) -> Self {
        Self {
            head: Arc::clone(&self.head),
            receipt: self.receipt.split(),
            drop_policy: self.drop_policy.clone(),
        }
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.take().settle(outcome);
    }

    pub(crate) fn into_receipt(mut self) -> Receipt {
        self.take()
    }

    fn take(&mut self) -> Receipt {
        std::mem::replace(&mut self.receipt, Receipt::none())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let outcome = self.drop_policy.outcome();
        self.take().settle(outcome);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?}, {:?})", self.head.span, self.receipt)
    }
}

/// A packet to be: the runner completes it with stream, origin, times, sequence number and
/// receipts.
#[derive(Debug)]
pub struct PacketDraft {
    /// What it carries.
    pub payload: Payload,
    /// Where in the stream it lies.
    pub span: Span,
    /// Which of several drafts with equal span it is.
    pub ordinal: u32,
    /// The model that made it.
    pub model: Option<Arc<ModelTag>>,
    /// The packets it was made of.
    pub parents: Vec<RecordId>,
    /// What it holds; nothing stands for the input of the call.
    pub(crate) held: Option<Vec<Held>>,
}

impl PacketDraft {
    /// Carries `payload` about `span`.
    pub fn new(payload: Payload, span: Span) -> Self {
        Self {
            payload,
            span,
            ordinal: 0,
            model: None,
            parents: Vec::new(),
            held: None,
        }
    }

    /// Names the model that made it.
    #[must_use]
    pub fn by(mut self, model: &Arc<ModelTag>) -> Self {
        self.model = Some(Arc::clone(model));
        self
    }

    /// Names the packets it was made of.
    #[must_use]
    pub fn from_records(mut self, parents: Vec<RecordId>) -> Self {
        self.parents = parents;
        self
    }

    /// Sets the number among drafts of equal span.
    #[must_use]
    pub fn ordinal(mut self, ordinal: u32) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// Names the inputs that it stands for, where these are not just the input of the call.
    #[must_use]
    pub fn holding(mut self, held: Vec<Held>) -> Self {
        self.held = Some(held);
        self
    }
}

/// Takes what a transform emits.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) drafts: Vec<PacketDraft>,
    pub(crate) at_risk: Vec<Held>,
}

impl Emitter {
    /// Emits a draft. Drafts leave in the order in which they are emitted, when the call returns.
    pub fn emit(&mut self, draft: PacketDraft) {
        self.drafts.push(draft);
    }

    /// Names earlier inputs that are lost with this call's own if it fails.
    pub fn risk<'a>(&mut self, held: impl IntoIterator<Item = &'a Held>) {
        self.at_risk.extend(held.into_iter().map(Held::split));
    }
}
