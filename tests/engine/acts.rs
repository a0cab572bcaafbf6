//! The made-up stages: a source, three transforms and a sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use opusflow::packet::{
    Cut, Embedding, Event, Frame, Packet, Payload, PayloadKind, PixelFormat, Segment, Span, Stream,
    TimeSource, VectorType, now_micros,
};
use opusflow::stage::{
    Build, Context, Emitter, Endpoint, Feed, Flush, Held, Host, Input, Joins, Lookahead,
    OpenTransform, Sink, Source, StageKind, Transform,
};
use opusflow::{Error, Result};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::lab::{Lab, Made, Root, Token, number, roots, token};
use super::spec::{Act, Stage};

/// A sink that drops a receipt without an outcome.
pub fn leaking(sink: Stage) -> Stage {
    Stage {
        act: Act::Leak,
        ..sink
    }
}

/// A sink that never lets a receipt go.
pub fn hoarding(sink: Stage) -> Stage {
    Stage {
        act: Act::Hoard,
        ..sink
    }
}

const ANY: &[PayloadKind] = &PayloadKind::ALL;

const fn kind(name: &'static str, accepts: &'static [PayloadKind], build: Build) -> StageKind {
    StageKind {
        name,
        doc: "",
        accepts,
        emits: ANY,
        params: &[],
        joins: Joins::AsWritten,
        endpoint: Endpoint::Other,
        lookahead: Lookahead::none,
        build,
    }
}

pub static SOURCE: StageKind = kind(
    "lab_source",
    &[],
    Build::Source(|context| Ok(Arc::new(Pushing(Lab::of(context).0)))),
);
pub static EACH: StageKind = kind(
    "lab_each",
    ANY,
    Build::Stateless(|context| {
        let (lab, id) = Lab::of(context);
        assert!(lab.stage(&id).act != Act::Each(u8::MAX), "planned");
        Ok(Arc::new(Each { lab, id }))
    }),
);
pub static WINDOW: StageKind = kind("lab_window", ANY, Build::Sequential(open_window));
pub static GATHER: StageKind = kind("lab_gather", ANY, Build::Windowed(open_gather));
pub static SINK: StageKind = kind(
    "lab_sink",
    ANY,
    Build::Sink(|context| {
        let (lab, id) = Lab::of(context);
        Ok(Arc::new(Delivering { lab, id }))
    }),
);

fn open_window(context: &Context<'_>) -> Result<OpenTransform> {
    let (open, planned) = (Open::new(context), Lab::of(context));
    Ok(Box::new(move |_| {
        assert!(planned.0.stage(&planned.1).act != Act::Window(0), "planned");
        Arc::new(Window(open()))
    }))
}

fn open_gather(context: &Context<'_>) -> Result<OpenTransform> {
    let open = Open::new(context);
    Ok(Box::new(move |_| Arc::new(Gather(open()))))
}

struct Pushing(Arc<Lab>);

#[async_trait]
impl Source for Pushing {
    async fn run(&self, host: Arc<dyn Host>, stop: CancellationToken) -> Result<()> {
        let streams =
            (0..self.0.spec.load.streams).map(|stream| self.push(stream as u8, &host, &stop));
        futures::future::try_join_all(streams).await.map(|_| ())
    }
}

impl Pushing {
    async fn push(&self, number: u8, host: &Arc<dyn Host>, stop: &CancellationToken) -> Result<()> {
        let load = &self.0.spec.load;
        let stream = Stream {
            id: number.to_string().into(),
            labels: BTreeMap::new(),
            session: Arc::from("lab"),
            live: false,
            time_source: TimeSource::File,
        };
        // A pipeline that ends refuses new streams.
        let Ok(feed) = host.open(stream.clone()).await else {
            return Ok(());
        };
        let twin = host.open(stream).await.err();
        assert!(
            stop.is_cancelled()
                || twin.is_some_and(|error| error.to_string().contains("have the id")),
            "a second stream of one id is refused"
        );
        self.0.book.lock().opened += 1;
        feed.epoch(0, now_micros()).await;
        feed.event(Event::Started {
            uri: format!("lab:{number}"),
            digest: None,
        })
        .await;
        let (mut epoch, mut since) = (0, 0);
        for n in 0..load
            .views
            .iter()
            .map(|(_, frames)| *frames)
            .max()
            .unwrap_or(0)
        {
            if stop.is_cancelled() && !load.deaf {
                feed.finish("shutdown".to_owned()).await;
                return Ok(());
            }
            if load.gaps.contains(&n) {
                (epoch, since) = (epoch + 1, n);
                feed.epoch(epoch, now_micros()).await;
            }
            for (view, (name, _)) in load
                .views
                .iter()
                .enumerate()
                .filter(|(_, (_, frames))| n < *frames)
            {
                self.frame(&*feed, (number, view as u8, n), name, (epoch, n - since))
                    .await;
            }
            if !load.every.is_zero() {
                tokio::time::sleep(load.every).await;
            }
        }
        if load.keeps {
            tokio::spawn(async move {
                let _feed = feed;
                std::future::pending::<()>().await;
            });
            return Ok(());
        }
        feed.finish("end_of_stream".to_owned()).await;
        Ok(())
    }

    async fn frame(
        &self,
        feed: &dyn Feed,
        root: Root,
        view: &'static str,
        (epoch, at): (u64, u32),
    ) {
        let load = &self.0.spec.load;
        let start = u64::from(at) * 40_000_000 + u64::from(root.1);
        let made = Made {
            stage: "in".to_owned(),
            view: Some(view),
            roots: vec![root],
            stream: root.0,
            epoch,
            start,
        };
        self.0.book.lock().made.insert(Token::Frame(root), made);
        let pixels = Bytes::from(vec![
            root.2 as u8;
            self.0.dice((root, "bytes"), load.bytes as u64) as usize
                + 1
        ]);
        let format = PixelFormat::Rgb8;
        let frame = Frame {
            view: view.into(),
            index: u64::from(root.2),
            width: 1,
            height: 1,
            stride: 3,
            format,
            pixels,
        };
        let age = if self.0.dice((root, "old"), 100) < u64::from(load.old) {
            60_000_000
        } else {
            0
        };
        feed.frame(
            frame,
            Span::new(start, start + 40_000_000),
            now_micros() - age,
        )
        .await;
    }
}

struct Each {
    lab: Arc<Lab>,
    id: String,
}

#[async_trait]
impl Transform for Each {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let stage = self.lab.stage(&self.id);
        let (token, tries) = self.lab.began(stage, input.head, input.payload.kind());
        let mut all = roots(input.head);
        input
            .collected
            .iter()
            .for_each(|(head, _)| all.extend(roots(head)));
        all.sort_unstable();
        all.dedup();
        {
            let mut book = self.lab.book.lock();
            let collected: Vec<_> = input
                .collected
                .iter()
                .map(|(head, _)| super::lab::token(head))
                .collect();
            book.collected
                .extend(collected.iter().map(|token| (self.id.clone(), *token)));
            let call = book.call(&self.id, token);
            (call.roots, call.collected, call.partial) = (all.clone(), collected, input.partial);
            let busy = book.busy.entry(self.id.clone()).or_default();
            *busy = (busy.0 + 1, busy.1.max(busy.0 + 1));
        }
        let _busy = Busy {
            lab: &self.lab,
            id: &self.id,
        };
        self.lab.fare(stage, token, tries).await?;
        let Act::Each(most) = stage.act else {
            return Err(Error::bug("the act is another"));
        };
        // One draft at least for most inputs, so that something reaches the sinks.
        let drafts = if most <= 1 {
            u64::from(most)
        } else {
            self.lab
                .dice((&self.id, token, "drafts"), u64::from(most) + 1)
        };
        for _ in 0..drafts {
            let vector = Bytes::from(vec![
                0;
                self.lab.dice((&self.id, token, "vector"), 400) as usize
            ]);
            let embedding = Embedding {
                space: "lab".into(),
                dtype: VectorType::F32,
                dim: 0,
                normalized: false,
                vector,
                frames: 1,
                labels: Vec::new(),
                scores: None,
            };
            let payload = if most == 1 {
                input.payload.clone()
            } else {
                Payload::Embedding(Arc::new(embedding))
            };
            out.emit(
                self.lab
                    .draft(&self.id, input.head, input.head.span, &all, payload),
            );
        }
        self.lab.note(&self.id, token, |call| call.ok = true);
        Ok(())
    }
}

struct Busy<'a> {
    lab: &'a Lab,
    id: &'a str,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.lab.book.lock().busy.get_mut(self.id) {
            busy.0 -= 1;
        }
    }
}

type Inputs = Vec<(Held, Vec<Root>)>;

/// What a stage that gathers inputs has open.
struct Open {
    lab: Arc<Lab>,
    id: String,
    inputs: Mutex<Inputs>,
}

impl Open {
    fn new(context: &Context<'_>) -> impl Fn() -> Self + Send + Sync + use<> {
        let (lab, id) = Lab::of(context);
        move || Self {
            lab: Arc::clone(&lab),
            id: id.clone(),
            inputs: Mutex::default(),
        }
    }

    /// Takes an input in; what is open, when it has become `most`.
    fn take_in(&self, input: Held, roots: Vec<Root>, most: usize) -> Inputs {
        let mut inputs = self.inputs.lock();
        inputs.push((input, roots));
        if inputs.len() >= most {
            std::mem::take(&mut *inputs)
        } else {
            Vec::new()
        }
    }

    fn flush(&self, out: &mut Emitter) {
        self.emit(std::mem::take(&mut *self.inputs.lock()), out);
    }

    fn emit(&self, inputs: Inputs, out: &mut Emitter) {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
            return;
        };
        let (like, span) = (
            Arc::clone(first.0.head()),
            Span::new(first.0.head().span.start, last.0.head().span.end),
        );
        let frames = inputs.len() as u64;
        let (held, all): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let segment = Payload::Segment(Arc::new(Segment {
            index: 0,
            cut: Cut::Hard,
            confidence: 1.0,
            frames,
        }));
        out.emit(
            self.lab
                .draft(&self.id, &like, span, &all.concat(), segment)
                .holding(held),
        );
    }

    /// Merged inputs come in any order, so that each of them may begin the next segment.
    fn earliest(&self, incoming: u64) -> u64 {
        self.inputs
            .lock()
            .iter()
            .map(|(held, _)| held.head().span.start)
            .fold(incoming, u64::min)
    }
}

struct Window(Open);

#[async_trait]
impl Transform for Window {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let Open { lab, id, .. } = &self.0;
        let stage = lab.stage(id);
        let Act::Window(most) = stage.act else {
            return Err(Error::bug("the act is another"));
        };
        let (token, tries) = lab.began(stage, input.head, input.payload.kind());
        let all = roots(input.head);
        lab.note(id, token, |call| call.roots = all.clone());
        lab.fare(stage, token, tries).await?;
        let full = self.0.take_in(input.hold(), all, most);
        self.0.emit(full, out);
        lab.note(id, token, |call| call.ok = true);
        Ok(())
    }

    async fn flush(&self, _why: Flush, out: &mut Emitter) -> Result<()> {
        self.0.flush(out);
        Ok(())
    }

    fn watermark(&self, incoming: u64) -> u64 {
        self.0.earliest(incoming)
    }
}

/// Takes its inputs in before its first wait, and then answers for the window that the input
/// filled.
struct Gather(Open);

#[async_trait]
impl Transform for Gather {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let Open { lab, id, .. } = &self.0;
        let stage = lab.stage(id);
        let Act::Gather(most) = stage.act else {
            return Err(Error::bug("the act is another"));
        };
        let (token, tries) = lab.began(stage, input.head, input.payload.kind());
        let own = roots(input.head);
        let full = self.0.take_in(input.hold(), own.clone(), most);
        let all = if full.is_empty() {
            own
        } else {
            full.iter().flat_map(|(_, roots)| roots.clone()).collect()
        };
        lab.note(id, token, |call| call.roots = all);
        if !full.is_empty() {
            out.risk(full.iter().map(|(held, _)| held));
            lab.fare(stage, token, tries).await?;
            self.0.emit(full, out);
        }
        lab.note(id, token, |call| call.ok = true);
        Ok(())
    }

    async fn flush(&self, _why: Flush, out: &mut Emitter) -> Result<()> {
        self.0.flush(out);
        Ok(())
    }

    fn watermark(&self, incoming: u64) -> u64 {
        self.0.earliest(incoming)
    }
}

struct Delivering {
    lab: Arc<Lab>,
    id: String,
}

#[async_trait]
impl Sink for Delivering {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let stage = self.lab.stage(&self.id);
        self.lab
            .book
            .lock()
            .batches
            .push((self.id.clone(), batch.len()));
        let mut begun = Vec::new();
        for packet in batch {
            let kind = packet.payload.kind();
            begun.push(match kind {
                PayloadKind::Event => None,
                PayloadKind::DeadLetter => Some((token(&packet.head), 1_000)),
                _ => Some(self.lab.began(stage, &packet.head, kind)),
            });
        }
        let mut outcomes = Vec::new();
        for begun in begun {
            // What hangs or panics in a batch takes the whole batch along.
            outcomes.push(match begun {
                Some((token, tries)) => self.lab.fare(stage, token, tries).await,
                None => Ok(()),
            });
        }
        for (packet, _) in batch
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
        {
            self.delivered(packet);
            match stage.act {
                Act::Leak => drop(packet.receipt.split()),
                Act::Hoard => std::mem::forget(packet.receipt.split()),
                _ => {}
            }
        }
        if stage.act == Act::Short {
            outcomes.pop();
        }
        outcomes
    }

    async fn finish(&self, stream: &Arc<Stream>) -> Result<()> {
        self.lab.book.lock().finished.push((
            self.id.clone(),
            stream.id.parse().expect("streams are numbered"),
        ));
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.lab.book.lock().closed.push(self.id.clone());
        Ok(())
    }
}

impl Delivering {
    fn delivered(&self, packet: &Packet) {
        let mut book = self.lab.book.lock();
        let (token, stream) = (token(&packet.head), number(&packet.head));
        match &packet.payload {
            Payload::Event(event) => book
                .events
                .entry((self.id.clone(), stream))
                .or_default()
                .push((**event).clone()),
            Payload::DeadLetter(letter) => _ = book.letters.insert((letter.stage.clone(), token)),
            payload => {
                if let (Payload::Frame(frame), Some(root)) = (payload, roots(&packet.head).first())
                {
                    book.pixels
                        .entry(*root)
                        .or_default()
                        .insert(frame.pixels.as_ptr() as usize);
                }
                book.call(&self.id, token).ok = true;
            }
        }
    }
}
