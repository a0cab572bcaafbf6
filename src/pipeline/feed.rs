//! The source's end of a session: frames become packets with root receipts, events go to the sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::output::Output;
use super::topology::{Stage, StageCounts};
use crate::packet::{
    Audio, Channel, Event, Frame, Head, Mark, Micros, Nanos, Origin, Packet, Payload, Receipt,
    Span, Stream, now_micros,
};
use crate::stage::{Account, Feed, Sender};

/// The way in for one view.
pub(crate) struct Entry {
    pub view: Arc<str>,
    pub account: Arc<Account>,
    pub output: Output,
}

/// The way in for one stream.
pub(crate) struct SessionFeed {
    source: Arc<Stage>,
    entries: Vec<Entry>,
    ended: AtomicBool,
    events: Arc<Events>,
    /// Taken by the first `finish`.
    end: Mutex<Option<oneshot::Sender<String>>>,
    /// Epoch and base are two words and are read one after the other: a source announces an epoch
    /// before it sends that epoch's frames, from one task, so that no frame meets half of a change.
    epoch: AtomicU64,
    base: AtomicI64,
    /// Whether an epoch was announced: every later one begins behind a gap.
    begun: AtomicBool,
    counts: Arc<FeedCounts>,
}

/// What a session's source has reported, for status and summary.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts {
    /// Frames that the decoder could not give.
    pub lost: AtomicU64,
    /// End of the newest frame, in nanoseconds of its epoch.
    pub position: AtomicU64,
    /// Length of the stream in nanoseconds, 0 where it is not known.
    pub length: AtomicU64,
}

impl SessionFeed {
    pub fn new(
        source: Arc<Stage>,
        entries: Vec<Entry>,
        events: Arc<Events>,
        end: oneshot::Sender<String>,
    ) -> Self {
        Self {
            source,
            entries,
            ended: AtomicBool::new(false),
            events,
            end: Mutex::new(Some(end)),
            epoch: AtomicU64::new(0),
            base: AtomicI64::new(now_micros()),
            begun: AtomicBool::new(false),
            counts: Arc::default(),
        }
    }

    /// What the source reports, where others can read it.
    pub fn counts(&self) -> &Arc<FeedCounts> {
        &self.counts
    }

    fn entries(&self) -> &[Entry] {
        if self.ended.load(Ordering::Acquire) {
            &[]
        } else {
            &self.entries
        }
    }
}

#[async_trait]
impl Feed for SessionFeed {
    async fn epoch(&self, epoch: u64, base: Micros) {
        let from_epoch = self.epoch.swap(epoch, Ordering::AcqRel);
        self.base.store(base, Ordering::Release);
        self.events.begin(epoch, base);
        if self.begun.swap(true, Ordering::AcqRel) {
            self.entries().iter().for_each(|entry| {
                entry.output.mark(&Mark::Gap {
                    from_epoch,
                    to_epoch: epoch,
                })
            });
        }
    }

    async fn frame(&self, frame: Frame, span: Span, arrived: Micros) {
        let (view, index) = (Arc::clone(&frame.view), frame.index);
        self.push(
            &view,
            index,
            Payload::Frame(Arc::new(frame)),
            (span, arrived),
        )
        .await;
    }

    async fn audio(&self, audio: Audio, span: Span, arrived: Micros) {
        let (view, index) = (Arc::clone(&audio.view), audio.index);
        self.push(
            &view,
            index,
            Payload::Audio(Arc::new(audio)),
            (span, arrived),
        )
        .await;
    }

    async fn end(&self, view: &str) {
        self.entries()
            .iter()
            .filter(|entry| *entry.view == *view)
            .for_each(|entry| entry.output.close());
    }

    async fn event(&self, event: Event) {
        self.events.emit(event).await;
    }

    async fn finish(&self, reason: String) {
        // Before the queues close, so that no frame sets out once they do.
        self.ended.store(true, Ordering::Release);
        self.entries.iter().for_each(|entry| entry.output.close());
        if let Some(end) = self.end.lock().take() {
            // A driver that is gone needs no word.
            let _ = end.send(reason);
        }
    }

    fn lost(&self, frames: u64) {
        self.counts.lost.fetch_add(frames, Ordering::Relaxed);
    }

    fn length(&self, nanos: Nanos) {
        self.counts.length.store(nanos, Ordering::Relaxed);
    }
}

impl SessionFeed {
    /// What a view gives becomes a packet with a root receipt.
    async fn push(
        &self,
        view: &str,
        index: u64,
        payload: Payload,
        (span, arrived): (Span, Micros),
    ) {
        let Some(entry) = self.entries().iter().find(|entry| *entry.view == *view) else {
            return;
        };
        self.counts.position.fetch_max(span.end, Ordering::Relaxed);
        StageCounts::add(&self.source.counts.emitted, 1);
        let epoch = self.epoch.load(Ordering::Acquire);
        let head = Head {
            channel: Arc::clone(&entry.output.channel),
            epoch,
            span,
            seq: index,
            ordinal: 0,
            event_time: self.base.load(Ordering::Acquire) + (span.start / 1000) as Micros,
            ingest_time: arrived,
            emit_time: arrived,
            parents: Vec::new(),
            model: None,
            revision: 0,
            is_final: true,
        };
        let receipt = entry.account.open(epoch, span.end);
        entry
            .output
            .send(Packet {
                head: Arc::new(head),
                payload,
                receipt,
            })
            .await;
    }
}

/// The way of events into the sinks of a session. No lock is held across a wait: a sink whose queue
/// is full delays the event's sender, and nobody else.
pub(crate) struct Events {
    channel: Arc<Channel>,
    /// Emptied by the last event.
    sinks: RwLock<Vec<Arc<Sender>>>,
    /// The epoch, and how many events it has had: an event's ordinal, with which it gets its id.
    count: Mutex<(u64, u32)>,
    base: AtomicI64,
}

impl Events {
    pub fn new(stream: Arc<Stream>, origin: Arc<Origin>) -> Arc<Self> {
        let (sinks, count, base) = (
            RwLock::default(),
            Mutex::new((0, 0)),
            AtomicI64::new(now_micros()),
        );
        Arc::new(Self {
            channel: Arc::new(Channel { stream, origin }),
            sinks,
            count,
            base,
        })
    }

    pub fn add(&self, sink: Sender) {
        self.sinks.write().push(Arc::new(sink));
    }

    /// Events from now on belong to `epoch`.
    pub fn begin(&self, epoch: u64, base: Micros) {
        *self.count.lock() = (epoch, 0);
        self.base.store(base, Ordering::Release);
    }

    /// Everything up to `complete` of `epoch` has settled.
    pub async fn progress(&self, epoch: u64, complete: Nanos) {
        if self.count.lock().0 == epoch {
            self.put(Event::Progress { complete }, complete).await;
        }
    }

    pub async fn emit(&self, event: Event) {
        self.put(event, 0).await;
    }

    /// Emits the last event: none that comes later is taken any more.
    pub async fn end(&self, event: Event) {
        let sinks = std::mem::take(&mut *self.sinks.write());
        self.put_into(&sinks, event, 0).await;
    }

    async fn put(&self, event: Event, pts: Nanos) {
        let sinks = self.sinks.read().clone();
        self.put_into(&sinks, event, pts).await;
    }

    async fn put_into(&self, sinks: &[Arc<Sender>], event: Event, pts: Nanos) {
        let (epoch, ordinal) = {
            let mut count = self.count.lock();
            let now = *count;
            count.1 += 1;
            now
        };
        let now = now_micros();
        let head = Arc::new(Head {
            channel: Arc::clone(&self.channel),
            epoch,
            span: Span::new(pts, pts),
            seq: u64::from(ordinal),
            ordinal,
            event_time: now,
            ingest_time: now,
            emit_time: now,
            parents: Vec::new(),
            model: None,
            revision: 0,
            is_final: true,
        });
        let payload = Payload::Event(Arc::new(event));
        for sink in sinks {
            sink.send(Packet {
                head: Arc::clone(&head),
                payload: payload.clone(),
                receipt: Receipt::none(),
            })
            .await;
        }
    }
}
