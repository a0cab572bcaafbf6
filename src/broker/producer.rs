//! The producer: idempotent, acknowledged by all replicas, patient in outages. Bytes in flight are
//! bounded: who sends more waits.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::message::{DeliveryReport, Outgoing};
use super::outbox::{Outbox, Signal, closed};
use super::settings::Settings;
use crate::error::{Error, Result};

/// The pause before a dead client is replaced: doubled each time, back to the first after a minute without one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const PAUSE_RESETS_AFTER: Duration = Duration::from_secs(60);
/// How often the supervisor looks at the brokers' state.
const TICK: Duration = Duration::from_secs(1);

/// Sends messages. Shared by reference; every clone of an `Arc` of it keeps the same order.
pub struct Producer {
    outbox: Arc<Outbox>,
    space: Arc<Semaphore>,
    capacity: u32,
    finished: Mutex<Option<oneshot::Receiver<usize>>>,
}

impl Producer {
    /// A producer that looks for its brokers by itself: that none is there yet is no error,
    /// messages wait for them.
    ///
    /// # Errors
    /// A config error where librdkafka refuses the settings.
    pub fn open(settings: &Settings) -> Result<Self> {
        // Room for one fatal error and the stops of `close` and `drop`.
        let (signals, inbox) = sync_channel(4);
        let outbox = Outbox::new(settings, signals)?;
        let (done, finished) = oneshot::channel();
        let supervised = Arc::clone(&outbox);
        std::thread::Builder::new()
            .name("kafka-supervisor".to_owned())
            .spawn(move || supervise(&supervised, &inbox, done))
            .map_err(|error| {
                Error::external("cannot start the kafka producer's thread").because(error)
            })?;
        let capacity = u32::try_from(settings.in_flight).unwrap_or(u32::MAX).max(1);
        let space = Arc::new(Semaphore::new(capacity as usize));
        Ok(Self {
            outbox,
            space,
            capacity,
            finished: Mutex::new(Some(finished)),
        })
    }

    /// Hands a message over, after waiting for room among the bytes in flight; messages are sent in
    /// the order of these calls. The report resolves when Kafka has it. A message that weighs more
    /// than everything allowed in flight goes alone.
    ///
    /// # Errors
    /// A config error where the message cannot be sent as it is (too large, for example); an
    /// external one once the producer closes.
    pub async fn send(&self, message: Outgoing) -> Result<DeliveryReport> {
        let weight = u32::try_from(message.weight())
            .unwrap_or(u32::MAX)
            .min(self.capacity);
        let space = Arc::clone(&self.space)
            .acquire_many_owned(weight)
            .await
            .map_err(|_| closed())?;
        self.outbox.submit(message, space).map(DeliveryReport)
    }

    /// Waits until everything sent so far and meanwhile has its report, or for `patience`. Says
    /// whether it has.
    pub async fn flush(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.outbox.drained())
            .await
            .is_ok()
    }

    /// Waits for the outstanding reports as long as `patience`, then gives the rest up: their
    /// reports resolve with an error. Returns how many those were. Nothing can be sent afterwards.
    pub async fn close(&self, patience: Duration) -> usize {
        self.space.close();
        self.flush(patience).await;
        self.outbox.close();
        let finished = self.finished.lock().take();
        match finished {
            Some(finished) => finished.await.unwrap_or(0),
            None => 0,
        }
    }

    /// Messages and bytes that await their acknowledgement.
    pub fn in_flight(&self) -> (usize, usize) {
        (
            self.outbox.len(),
            self.capacity as usize - self.space.available_permits(),
        )
    }

    /// Whether no broker could be reached at the last attempt.
    pub fn is_down(&self) -> bool {
        self.outbox.link().is_down()
    }

    /// How often its client was replaced after a fatal error.
    pub fn restarts(&self) -> u64 {
        self.outbox.generation()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, bytes) = self.in_flight();
        f.debug_struct("Producer")
            .field("messages", &messages)
            .field("bytes", &bytes)
            .field("down", &self.is_down())
            .finish()
    }
}

/// Replaces dead clients until the producer closes, then ends the last one.
fn supervise(outbox: &Arc<Outbox>, signals: &Receiver<Signal>, done: oneshot::Sender<usize>) {
    let mut pause = FIRST_PAUSE;
    let mut last = Instant::now();
    loop {
        match signals.recv_timeout(TICK) {
            Ok(Signal::Fatal) => {}
            Err(RecvTimeoutError::Timeout) => {
                outbox.tick();
                continue;
            }
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if last.elapsed() > PAUSE_RESETS_AFTER {
            pause = FIRST_PAUSE;
        }
        if !matches!(signals.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        outbox.replace();
        last = Instant::now();
    }
    // Nobody may be waiting any more.
    let _ = done.send(outbox.finish());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::{Headers, Message};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    use super::*;
    use crate::broker::Delivery;
    use crate::broker::{Brokers, Embedded};
    use crate::error::Kind;

    const TOPIC: &str = "media.captions.v1";
    const LONG: Duration = Duration::from_secs(20);

    fn broker() -> (Arc<Embedded>, Settings) {
        let broker = Arc::new(Embedded::start().unwrap());
        broker.create_topics(&[TOPIC.to_owned()]).unwrap();
        let mut settings = Settings::new(Brokers::Embedded(Arc::clone(&broker)), "media");
        settings
            .properties
            .insert("reconnect.backoff.max.ms".to_owned(), "50".to_owned());
        settings
            .properties
            .insert("reconnect.backoff.ms".to_owned(), "10".to_owned());
        (broker, settings)
    }

    fn message(number: usize) -> Outgoing {
        Outgoing {
            topic: TOPIC.into(),
            key: format!("stream-{}", number % 3).into(),
            payload: format!("{number}").into(),
            headers: vec![("ce_id", format!("id-{number}")), ("empty", String::new())],
            timestamp_ms: 1_700_000_000_000 + number as i64,
        }
    }

    struct Seen {
        key: String,
        number: usize,
        headers: BTreeMap<String, String>,
        timestamp_ms: Option<i64>,
    }

    fn consume(broker: &Embedded, count: usize) -> Vec<Seen> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.bootstrap())
            .set("group.id", "test");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(TOPIC, 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&assignment).unwrap();
        let mut seen = Vec::new();
        let deadline = Instant::now() + LONG;
        while seen.len() < count && Instant::now() < deadline {
            let Some(message) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let message = message.unwrap();
            let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers = message.headers().unwrap().iter();
            seen.push(Seen {
                key: utf8(message.key().unwrap()),
                number: utf8(message.payload().unwrap()).parse().unwrap(),
                headers: headers
                    .map(|header| (header.key.to_owned(), utf8(header.value.unwrap())))
                    .collect(),
                timestamp_ms: message.timestamp().to_millis(),
            });
        }
        seen
    }

    fn numbers(seen: &[Seen]) -> Vec<usize> {
        seen.iter().map(|seen| seen.number).collect()
    }

    async fn send_all(producer: &Producer, numbers: std::ops::Range<usize>) -> Vec<DeliveryReport> {
        let mut reports = Vec::new();
        for number in numbers {
            reports.push(producer.send(message(number)).await.unwrap());
        }
        reports
    }

    #[tokio::test]
    async fn records_arrive_once_in_order_with_all_that_surrounds_them() {
        let (broker, settings) = broker();
        let producer = Producer::open(&settings).unwrap();
        for (number, report) in send_all(&producer, 0..1000).await.into_iter().enumerate() {
            assert_eq!(
                report.await.unwrap(),
                Delivery {
                    partition: 0,
                    offset: number as i64
                }
            );
        }
        assert_eq!(producer.in_flight(), (0, 0));
        let seen = consume(&broker, 1000);
        assert_eq!(numbers(&seen), (0..1000).collect::<Vec<_>>());
        for seen in seen {
            assert_eq!(seen.key, format!("stream-{}", seen.number % 3));
            assert_eq!(
                seen.headers,
                BTreeMap::from([
                    ("ce_id".to_owned(), format!("id-{}", seen.number)),
                    ("empty".to_owned(), String::new())
                ])
            );
            assert_eq!(
                seen.timestamp_ms,
                Some(1_700_000_000_000 + seen.number as i64)
            );
        }
        assert_eq!(producer.close(LONG).await, 0);
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_in_order() {
        let (broker, settings) = broker();
        let producer = Producer::open(&settings).unwrap();
        let mut reports = send_all(&producer, 0..20).await;
        assert!(producer.flush(LONG).await);
        broker
            .with(|cluster| cluster.broker_down(-1))
            .unwrap()
            .unwrap();
        reports.extend(send_all(&producer, 20..60).await);
        assert!(!producer.flush(Duration::from_millis(60)).await);
        assert_eq!(producer.in_flight().0, 40);
        broker
            .with(|cluster| cluster.broker_up(-1))
            .unwrap()
            .unwrap();
        assert!(producer.flush(LONG).await);
        for report in reports {
            report.await.unwrap();
        }
        assert!(!producer.is_down());
        assert_eq!(numbers(&consume(&broker, 60)), (0..60).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_fatal_error_costs_the_client_and_no_message() {
        let (broker, settings) = broker();
        let refuse = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED; 2];
        broker
            .with(move |cluster| cluster.request_errors(RDKafkaApiKey::InitProducerId, &refuse))
            .unwrap();
        let producer = Producer::open(&settings).unwrap();
        for report in send_all(&producer, 0..50).await {
            tokio::time::timeout(LONG, report).await.unwrap().unwrap();
        }
        assert_eq!(numbers(&consume(&broker, 50)), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_senders_wait() {
        let (broker, mut settings) = broker();
        settings.in_flight = message(0).weight() * 2;
        broker
            .with(|cluster| cluster.broker_down(-1))
            .unwrap()
            .unwrap();
        let producer = Producer::open(&settings).unwrap();
        let _reports = send_all(&producer, 0..2).await;
        let third = producer.send(message(2));
        tokio::pin!(third);
        assert!(
            tokio::time::timeout(Duration::from_millis(30), &mut third)
                .await
                .is_err()
        );
        broker
            .with(|cluster| cluster.broker_up(-1))
            .unwrap()
            .unwrap();
        tokio::time::timeout(LONG, third)
            .await
            .unwrap()
            .unwrap()
            .await
            .unwrap();
        let heavy = Outgoing {
            payload: vec![b'1'; 5000].into(),
            ..message(3)
        };
        assert!(heavy.weight() > settings.in_flight);
        tokio::time::timeout(LONG, producer.send(heavy))
            .await
            .unwrap()
            .unwrap()
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn closing_gives_up_what_the_deadline_leaves() {
        let (broker, settings) = broker();
        let producer = Producer::open(&settings).unwrap();
        let early = send_all(&producer, 0..3).await;
        assert!(producer.flush(LONG).await);
        broker
            .with(|cluster| cluster.broker_down(-1))
            .unwrap()
            .unwrap();
        let late = send_all(&producer, 3..10).await;
        assert_eq!(producer.close(Duration::from_millis(20)).await, 7);
        for report in early {
            report.await.unwrap();
        }
        for report in late {
            assert!(
                report
                    .await
                    .unwrap_err()
                    .to_string()
                    .contains("closed before Kafka took it")
            );
        }
        assert_eq!(producer.in_flight(), (0, 0));
        assert!(producer.send(message(10)).await.is_err());
        assert_eq!(producer.close(Duration::ZERO).await, 0);
    }

    #[tokio::test]
    async fn what_can_never_be_sent_fails_at_once() {
        let (_broker, settings) = broker();
        let producer = Producer::open(&settings).unwrap();
        let error = producer
            .send(Outgoing {
                payload: vec![0; 2 << 20].into(),
                ..message(0)
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("message.max.bytes"), "{error}");
        producer.send(message(1)).await.unwrap().await.unwrap();
    }
}
