//! The three roles a stage can have. The runner owns channels, retries, timeouts, panics, metrics,
//! receipts, order and shutdown; an author sees inputs and emits drafts.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::emitter::Emitter;
use super::input::Input;
use crate::Result;
use crate::packet::{Audio, Event, Frame, Micros, Nanos, Packet, PayloadKind, Span, Stream};

/// Opens streams and pushes their frames.
#[async_trait]
pub trait Source: Send + Sync {
    /// Runs until its streams have ended or `stop` is cancelled. Each stream gets a session from
    /// `host` and feeds it.
    ///
    /// # Errors
    /// What keeps the source as a whole from going on; what ends one stream goes to its feed, as
    /// the reason of [`Feed::finish`].
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
    /// Begins an epoch: `base` is the wall clock at its pts 0, in microseconds since 1970. Each
    /// after the first puts a gap into every view.
    async fn epoch(&self, epoch: u64, base: Micros);

    /// Pushes a frame, which lies at `span` of the epoch and came at `arrived`, into the queues
    /// that read its view. Waits while one of them is full and blocks.
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
    /// Takes one input and emits what it makes of it. A kind built by `Build::Stateless` or
    /// `Build::Windowed` is asked concurrently, one built by `Build::Sequential` a packet at a time.
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

    /// The earliest pts it may still emit, given that its inputs will not go below `incoming`.
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
