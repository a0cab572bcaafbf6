//! Made-up stages that write down all they send, see and emit, so that a test can count apart from
//! the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use opusflow::packet::{Event, Head, Payload, PayloadKind, RecordId, Span};
use opusflow::pipeline::Running;
use opusflow::stage::{Context, Deps, PacketDraft};
use opusflow::{Error, Result};
use parking_lot::Mutex;

use super::acts::SOURCE;
use super::spec::{Spec, Stage};

/// A frame of the source: stream, view and number.
pub type Root = (u8, u8, u32);

/// A packet: a frame, or the draft with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Token {
    Frame(Root),
    Draft(u32),
}

/// Where a packet lies and what it was made of.
#[derive(Debug, Clone)]
pub struct Made {
    pub stage: String,
    pub view: Option<&'static str>,
    pub roots: Vec<Root>,
    pub stream: u8,
    pub epoch: u64,
    pub start: u64,
}

/// What a stage did with one packet.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub tries: u32,
    pub ok: bool,
    pub roots: Vec<Root>,
    pub collected: Vec<Token>,
    pub span: Span,
    pub partial: bool,
}

/// Packets of one sink, view, stage and kind.
pub type Lane = (String, u8, String, PayloadKind);

/// All that was written down.
#[derive(Debug, Default)]
pub struct Book {
    pub made: BTreeMap<Token, Made>,
    pub calls: HashMap<(String, Token), Call>,
    /// Collected by a join at least once.
    pub collected: HashSet<(String, Token)>,
    /// Dead letters delivered: the stage that failed, and on what.
    pub letters: HashSet<(String, Token)>,
    /// In the order of their arrival, by sink and stream.
    pub events: BTreeMap<(String, u8), Vec<Event>>,
    /// Packets in the order in which each stage first saw them: by reader, stream and what they
    /// are.
    pub order: HashMap<Lane, Vec<(u64, u64)>>,
    /// Where the pixels of a frame lay at each sink.
    pub pixels: HashMap<Root, HashSet<usize>>,
    pub batches: Vec<(String, usize)>,
    pub finished: Vec<(String, u8)>,
    pub closed: Vec<String>,
    /// Streams that were opened.
    pub opened: usize,
    /// Calls under way now and at most, by stage.
    pub busy: HashMap<String, (usize, usize)>,
}

impl Book {
    /// The call of stage `id` on `token`, which has begun.
    pub fn call(&mut self, id: &str, token: Token) -> &mut Call {
        self.calls
            .get_mut(&(id.to_owned(), token))
            .expect("it began")
    }
}

/// A test pipeline with its book.
pub struct Lab {
    pub spec: Spec,
    pub book: Mutex<Book>,
    next: AtomicU32,
}

static LABS: LazyLock<Mutex<HashMap<String, Arc<Lab>>>> = LazyLock::new(Mutex::default);

impl Lab {
    /// Starts the pipeline of `spec`.
    pub fn start(spec: Spec) -> (Arc<Self>, Running) {
        let (lab, running) = Self::try_start(spec);
        (lab, running.expect("the made-up stages build"))
    }

    /// As `start`, when a stage may refuse to be built.
    pub fn try_start(spec: Spec) -> (Arc<Self>, Result<Running>) {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let name = format!("lab-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        silence_planned_panics();
        let plan = spec.plan(&name);
        let lab = Arc::new(Self {
            spec,
            book: Mutex::default(),
            next: AtomicU32::new(1),
        });
        LABS.lock().insert(name, Arc::clone(&lab));
        (lab, Running::start(plan, &Arc::new(Deps::default())))
    }

    pub fn of(context: &Context<'_>) -> (Arc<Self>, String) {
        let lab = LABS
            .lock()
            .get(&*context.origin.pipeline)
            .cloned()
            .expect("the pipeline was started by a lab");
        (lab, context.origin.stage.to_string())
    }

    pub fn stage(&self, id: &str) -> &Stage {
        self.spec
            .stages
            .iter()
            .find(|stage| stage.id == id)
            .expect("the stage is in the spec")
    }

    /// A number below `below` that depends on the seed and `what` alone.
    pub fn dice(&self, what: impl Hash, below: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.spec.seed, what).hash(&mut hasher);
        hasher.finish() % below.max(1)
    }

    /// How try number `tries` of `stage` on `token` goes.
    pub async fn fare(&self, stage: &Stage, token: Token, tries: u32) -> Result<()> {
        let behave = stage.behave;
        if behave.delay > 0 {
            let delay = self.dice((&stage.id, token, tries, "delay"), behave.delay + 1);
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let mut luck = self.dice((&stage.id, token, tries), 100) as i64;
        let mut hit = |percent: u8| {
            luck -= i64::from(percent);
            luck < 0
        };
        if hit(behave.transient) {
            return Err(Error::external("planned, may pass"));
        }
        if hit(behave.permanent) {
            return Err(Error::model("planned, for good"));
        }
        assert!(!hit(behave.panic), "planned");
        if hit(behave.hang) && stage.timeout.is_some() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    pub fn draft(
        &self,
        stage: &str,
        like: &Head,
        span: Span,
        roots: &[Root],
        payload: Payload,
    ) -> PacketDraft {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let made = Made {
            stage: stage.to_owned(),
            view: None,
            roots: roots.to_vec(),
            stream: number(like),
            epoch: like.epoch,
            start: span.start,
        };
        self.book.lock().made.insert(Token::Draft(token), made);
        PacketDraft::new(payload, span)
            .ordinal(token)
            .from_records(roots.iter().map(record).collect())
    }

    /// Writes something down about a call that has begun.
    pub fn note(&self, id: &str, token: Token, what: impl FnOnce(&mut Call)) {
        what(self.book.lock().call(id, token));
    }

    pub fn began(&self, stage: &Stage, head: &Head, kind: PayloadKind) -> (Token, u32) {
        let token = token(head);
        let mut book = self.book.lock();
        let call = book.calls.entry((stage.id.clone(), token)).or_default();
        call.tries += 1;
        call.span = head.span;
        let tries = call.tries;
        if tries == 1 {
            let view = if let Token::Frame((_, view, _)) = token {
                view
            } else {
                0
            };
            let from = format!("{}.{view}", head.channel.origin.stage);
            book.order
                .entry((stage.id.clone(), number(head), from, kind))
                .or_default()
                .push((head.epoch, head.seq));
        }
        (token, tries)
    }
}

fn silence_planned_panics() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"planned") {
                before(info);
            }
        }));
    });
}

fn record(root: &Root) -> RecordId {
    let mut id = [0; 16];
    (id[0], id[1]) = (root.0, root.1);
    id[2..6].copy_from_slice(&root.2.to_le_bytes());
    RecordId(id)
}

pub fn number(head: &Head) -> u8 {
    head.channel
        .stream
        .id
        .parse()
        .expect("streams are numbered")
}

/// Frames carry their view in the last digits of their pts, for a dead letter has no frame.
pub fn token(head: &Head) -> Token {
    if head.channel.origin.kind == SOURCE.name {
        Token::Frame((number(head), (head.span.start % 8) as u8, head.seq as u32))
    } else {
        Token::Draft(head.ordinal)
    }
}

pub fn roots(head: &Head) -> Vec<Root> {
    match token(head) {
        Token::Frame(root) => vec![root],
        Token::Draft(_) => {
            let root = |id: &RecordId| {
                (
                    id.0[0],
                    id.0[1],
                    u32::from_le_bytes([id.0[2], id.0[3], id.0[4], id.0[5]]),
                )
            };
            head.parents.iter().map(root).collect()
        }
    }
}
