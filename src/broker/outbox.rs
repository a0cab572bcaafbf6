//! The messages that await their acknowledgement, in order, and the librdkafka client that carries
//! them. When a client dies of a fatal error a fresh one takes its place and carries everything
//! outstanding again, in order; a message may then arrive twice, under the same id.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext,
    ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::client::{Link, count, log};
use super::message::{Delivery, Outgoing};
use super::settings::Settings;
use crate::error::{Error, Result};

type Client = ThreadedProducer<Context>;

/// What the supervisor is asked to do.
pub(super) enum Signal {
    /// The client is beyond use.
    Fatal,
    /// The producer closes.
    Stop,
}

/// Shared by the producer, its supervisor and the client's callbacks.
pub(super) struct Outbox {
    settings: Settings,
    config: ClientConfig,
    link: Arc<Link>,
    signals: SyncSender<Signal>,
    idle: Notify,
    state: Mutex<State>,
}

struct State {
    /// None while it is replaced, and after the end.
    client: Option<Client>,
    /// Which client it is, from 0.
    generation: u64,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// What the pending messages hold of the bytes in flight.
    bytes: usize,
    replacing: bool,
    closing: bool,
    /// Messages that failed since `closing`.
    abandoned: usize,
}

struct Pending {
    message: Outgoing,
    reply: oneshot::Sender<Result<Delivery>>,
    space: OwnedSemaphorePermit,
}

impl Outbox {
    /// With its first client, which looks for the brokers by itself.
    pub(super) fn new(settings: &Settings, signals: SyncSender<Signal>) -> Result<Arc<Self>> {
        let state = State {
            client: None,
            generation: 0,
            next: 0,
            pending: BTreeMap::new(),
            bytes: 0,
            replacing: false,
            closing: false,
            abandoned: 0,
        };
        let outbox = Arc::new(Self {
            settings: settings.clone(),
            config: settings.client_config()?,
            link: Link::new(settings.brokers.bootstrap()),
            signals,
            idle: Notify::new(),
            state: Mutex::new(state),
        });
        let client = outbox.client(0)?;
        outbox.state.lock().client = Some(client);
        Ok(outbox)
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// A second passed.
    pub(super) fn tick(&self) {
        self.link.tick(self.len() > 0);
    }

    /// Messages that await their acknowledgement.
    pub(super) fn len(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Clients that took the place of a dead one.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Takes a message; its report arrives at the receiver.
    pub(super) fn submit(
        &self,
        message: Outgoing,
        space: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Delivery>>> {
        let (reply, report) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closing {
            return Err(closed());
        }
        let number = state.next;
        match state
            .client
            .as_ref()
            .map_or(Ok(()), |client| enqueue(client, number, &message))
        {
            Ok(()) => {}
            Err(RDKafkaErrorCode::Fatal) => self.request_replacement(&mut state),
            Err(code) => return Err(undelivered(&message.topic, code)),
        }
        state.next += 1;
        state.bytes += space.num_permits();
        debug_assert!(
            state.bytes <= self.settings.in_flight.max(1),
            "no more is in flight than is allowed"
        );
        state.pending.insert(
            number,
            Pending {
                message,
                reply,
                space,
            },
        );
        Ok(report)
    }

    /// Resolves when nothing is outstanding.
    pub(super) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that no notice comes in between.
            idle.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// No further message is taken.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        // A full channel holds a stop already.
        let _ = self.signals.try_send(Signal::Stop);
    }

    /// Puts a fresh client in the place of the dead one and sends everything outstanding again.
    /// Runs on the supervisor's thread, because a client cannot be dropped by its own.
    pub(super) fn replace(self: &Arc<Self>) {
        let dead = self.state.lock().client.take();
        // Its last reports arrive while it is dropped; those of success count.
        drop(dead);
        let generation = self.state.lock().generation + 1;
        let client = match self.client(generation) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "cannot replace the kafka producer, trying again");
                let _ = self.signals.try_send(Signal::Fatal);
                return;
            }
        };
        let mut refused = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            (state.generation, state.replacing) = (generation, false);
            for (number, pending) in &state.pending {
                match enqueue(&client, *number, &pending.message) {
                    Ok(()) => {}
                    // The rest is sent by the next client.
                    Err(RDKafkaErrorCode::Fatal) => break,
                    Err(code) => refused.push((*number, code)),
                }
            }
            tracing::warn!(
                outstanding = state.pending.len(),
                "kafka producer replaced after a fatal error"
            );
            state.client = Some(client);
        }
        refused
            .into_iter()
            .for_each(|(number, code)| self.report(generation, number, Err(code)));
    }

    /// Drops the client and whatever it still holds. Returns how many messages were given up.
    pub(super) fn finish(&self) -> usize {
        let client = {
            let mut state = self.state.lock();
            state.closing = true;
            state.client.take()
        };
        drop(client);
        let (rest, abandoned) = {
            let mut state = self.state.lock();
            let rest = std::mem::take(&mut state.pending);
            state.bytes = 0;
            (rest, state.abandoned)
        };
        let count = rest.len() + abandoned;
        for pending in rest.into_values() {
            // Who sent it may have gone.
            let _ = pending.reply.send(Err(undelivered(
                &pending.message.topic,
                RDKafkaErrorCode::PurgeQueue,
            )));
        }
        self.idle.notify_waiters();
        count
    }

    fn client(self: &Arc<Self>, generation: u64) -> Result<Client> {
        let context = Context {
            outbox: Arc::downgrade(self),
            link: Arc::clone(&self.link),
            generation,
        };
        self.config
            .create_with_context(context)
            .map_err(|error| self.settings.refused(error))
    }

    fn request_replacement(&self, state: &mut State) {
        if !state.closing && !std::mem::replace(&mut state.replacing, true) {
            // At most one is under way, and the channel has room for it and the stops.
            let _ = self.signals.try_send(Signal::Fatal);
        }
    }

    fn report(&self, generation: u64, number: u64, result: Result<Delivery, RDKafkaErrorCode>) {
        let mut state = self.state.lock();
        if let Err(code) = result {
            if state.closing {
                state.abandoned += 1;
            } else if generation != state.generation || state.replacing {
                return;
            } else if state.is_client_failure(code) {
                return self.request_replacement(&mut state);
            }
        }
        let Some(pending) = state.pending.remove(&number) else {
            return;
        };
        state.bytes -= pending.space.num_permits();
        let idle = state.pending.is_empty();
        debug_assert!(
            !idle || state.bytes == 0,
            "an empty outbox holds no bytes in flight"
        );
        drop(state);
        if result.is_ok() {
            self.link.up();
        }
        // Who sent it may have gone.
        let _ = pending
            .reply
            .send(result.map_err(|code| undelivered(&pending.message.topic, code)));
        if idle {
            self.idle.notify_waiters();
        }
    }
}

impl State {
    /// Whether a message failed only because its client did.
    fn is_client_failure(&self, code: RDKafkaErrorCode) -> bool {
        matches!(
            code,
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::PurgeQueue
                | RDKafkaErrorCode::PurgeInflight
        ) || self
            .client
            .as_ref()
            .is_some_and(|client| client.client().fatal_error().is_some())
    }
}

/// What a client reports to its outbox.
struct Context {
    outbox: Weak<Outbox>,
    link: Arc<Link>,
    generation: u64,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::Fatal) {
            return self.link.error(&error, reason);
        }
        count(&error);
        if let Some(outbox) = self.outbox.upgrade() {
            let mut state = outbox.state.lock();
            if state.generation == self.generation && !state.replacing && !state.closing {
                tracing::error!(reason, "fatal error of the kafka producer");
                outbox.request_replacement(&mut state);
            }
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let Some(outbox) = self.outbox.upgrade() else {
            return;
        };
        let result = match result {
            Ok(message) => Ok(Delivery {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        outbox.report(self.generation, number as u64, result);
    }
}

fn enqueue(client: &Client, number: u64, message: &Outgoing) -> Result<(), RDKafkaErrorCode> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in &message.headers {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    let record = BaseRecord::with_opaque_to(&message.topic, number as usize)
        .key(&*message.key)
        .payload(&*message.payload)
        .headers(headers)
        .timestamp(message.timestamp_ms);
    client
        .send(record)
        .map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

pub(super) fn closed() -> Error {
    Error::external("the kafka producer is closed")
}

fn undelivered(topic: &str, code: RDKafkaErrorCode) -> Error {
    use RDKafkaErrorCode as Code;
    let message = format!("a record for topic {topic} was not delivered");
    match code {
        Code::MessageSizeTooLarge => {
            let hint = "raise message.max.bytes in kafka.properties and of the topic, or keep \
                        pictures out of records by objects.inline_max";
            Error::config(message).because(code).hint(hint)
        }
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic => Error::config(message)
            .because(code)
            .hint("create the topic, or set kafka.create_topics.policy to `create`"),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Error::config(message)
            .because(code)
            .hint("the login lacks the permission to write"),
        Code::PurgeQueue | Code::PurgeInflight => Error::external(format!(
            "{message}: the producer closed before Kafka took it"
        )),
        _ => Error::external(message).because(code),
    }
}
