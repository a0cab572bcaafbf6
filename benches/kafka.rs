//! Records a second into Apache Kafka, from packets to acknowledgements: codec and headers, then
//! `broker::Producer`. Peers: librdkafka alone with the same messages ready made and the same
//! settings, and Java's producer (`benches/peers/Produce.java`), which reads the same messages from
//! a file. `KAFKA_BROKERS` says where.

mod report;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opusflow::broker::{Brokers, Outgoing, Producer, Settings};
use opusflow::codec::{self, Codec};
use opusflow::packet::{
    Caption, Channel, Embedding, Finish, Head, Label, ModelTag, Origin, Packet, Payload, Receipt,
    RecordId, Span, Stream, TimeSource, VectorType,
};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

/// Different packets; they are sent again and again.
const PACKETS: usize = 10_000;
const STREAMS: usize = 8;
const PARTITIONS: i32 = 4;
/// Reports that may be outstanding before the oldest is awaited.
const WINDOW: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    warm: usize,
    records: usize,
}

const LOADS: [Load; 2] = [
    Load {
        name: "captions",
        warm: 50_000,
        records: 200_000,
    },
    Load {
        name: "embeddings",
        warm: 20_000,
        records: 60_000,
    },
];

fn payload(load: Load, n: usize) -> Payload {
    if load.name == "captions" {
        let tags = ["seashore", "laptop", "stage", "desk", "comic book"];
        let tags = (0..5)
            .map(|at| Label {
                name: tags[(n + at) % 5].into(),
                score: 0.5 / (at + n % 7 + 1) as f32,
            })
            .collect();
        let text = format!(
            "Shot {n}: a person at a {} explains how people share what they make.",
            ["desk", "window", "table"][n % 3]
        );
        let (language, platform) = ("en".to_owned(), String::new());
        return Payload::Caption(Arc::new(Caption {
            text,
            language,
            platform,
            tags,
            tokens: 18,
            finish: Finish::Stop,
            partial: false,
            variant: 0,
        }));
    }
    // As a unit vector's numbers lie: noise that does not compress.
    let mut state = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as f64 / u64::MAX as f64 - 0.5) as f32 * 0.15
    };
    let vector: Vec<u8> = (0..512).map(number).flat_map(f32::to_le_bytes).collect();
    Payload::Embedding(Arc::new(Embedding {
        space: "resnet-18@3fa5".into(),
        dtype: VectorType::F32,
        dim: 512,
        normalized: true,
        vector: vector.into(),
        frames: 1,
        labels: vec![Label {
            name: "seashore".into(),
            score: 0.5,
        }],
        scores: None,
    }))
}

fn packets(load: Load) -> Vec<Packet> {
    let streams: Vec<Arc<Stream>> = (0..STREAMS)
        .map(|n| Stream {
            id: format!("camera-{n}").into(),
            labels: BTreeMap::from([("channel".to_owned(), format!("{n}"))]),
            session: "4c1d0f6b8a90e2f7".into(),
            live: true,
            time_source: TimeSource::Ntp,
        })
        .map(Arc::new)
        .collect();
    let origin = Arc::new(Origin {
        stage: "words".into(),
        kind: "caption",
        pipeline: "newsroom".into(),
        config_hash: "0f6b8a90e2f74c1d".into(),
        parameters: [7; 16],
    });
    let model = Arc::new(ModelTag {
        id: "resnet-18".to_owned(),
        revision: "3fa5c0de".to_owned(),
        precision: "bf16".to_owned(),
    });
    let channels: Vec<_> = streams
        .iter()
        .map(|stream| {
            Arc::new(Channel {
                stream: Arc::clone(stream),
                origin: Arc::clone(&origin),
            })
        })
        .collect();
    let head = |n: usize| Head {
        channel: Arc::clone(&channels[n % STREAMS]),
        epoch: 1_767_323_000_000_000,
        span: Span::new(n as u64 * 500_000_000, (n as u64 + 1) * 500_000_000),
        seq: (n / STREAMS) as u64,
        ordinal: 0,
        event_time: 1_767_323_045_678_901 + n as i64 * 500_000,
        ingest_time: 1_767_323_045_679_901 + n as i64 * 500_000,
        emit_time: 1_767_323_045_689_901 + n as i64 * 500_000,
        parents: vec![RecordId([n as u8; 16])],
        model: Some(Arc::clone(&model)),
        revision: 0,
        is_final: true,
    };
    (0..PACKETS)
        .map(|n| Packet {
            head: Arc::new(head(n)),
            payload: payload(load, n),
            receipt: Receipt::none(),
        })
        .collect()
}

fn message(topic: &Arc<str>, codec: &Codec, packet: &Packet) -> Outgoing {
    Outgoing {
        topic: Arc::clone(topic),
        key: codec::key(packet).into(),
        payload: Bytes::from(codec.encode(packet)),
        headers: codec::headers(packet, codec.encoding()),
        timestamp_ms: codec::timestamp_ms(packet),
    }
}

/// Sends `count` packets and awaits every report; seconds.
async fn ours(producer: &Producer, topic: &Arc<str>, packets: &[Packet], count: usize) -> f64 {
    let codec = Codec::avro();
    let began = Instant::now();
    let mut reports = VecDeque::with_capacity(WINDOW);
    for packet in packets.iter().cycle().take(count) {
        if reports.len() == WINDOW
            && let Some(report) = reports.pop_front()
        {
            let report: opusflow::broker::DeliveryReport = report;
            report.await.expect("it is delivered");
        }
        reports.push_back(
            producer
                .send(message(topic, &codec, packet))
                .await
                .expect("it is taken"),
        );
    }
    for report in reports {
        report.await.expect("it is delivered");
    }
    began.elapsed().as_secs_f64()
}

#[derive(Default)]
struct Acknowledged(AtomicU64);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "every message is delivered");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn rdkafka(client: &ThreadedProducer<Acknowledged>, messages: &[Outgoing], count: usize) -> f64 {
    let began = Instant::now();
    let before = client.context().0.load(Ordering::Relaxed);
    for message in messages.iter().cycle().take(count) {
        let headers = message.headers.iter().fold(
            OwnedHeaders::new_with_capacity(message.headers.len()),
            |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        );
        let mut record = BaseRecord::to(&message.topic)
            .key(&*message.key)
            .payload(&*message.payload)
            .headers(headers)
            .timestamp(message.timestamp_ms);
        while let Err((error, refused)) = client.send(record) {
            assert!(
                matches!(
                    error,
                    KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
                ),
                "{error}"
            );
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }
    client.flush(PATIENCE).expect("everything is acknowledged");
    while client.context().0.load(Ordering::Relaxed) < before + count as u64 {
        std::thread::yield_now();
    }
    began.elapsed().as_secs_f64()
}

/// Messages as Java reads them, all numbers big-endian: their count, then for each its timestamp,
/// key, value, and headers.
fn dump(path: &Path, messages: &[Outgoing]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let number = |n: usize| u32::try_from(n).expect("messages are small").to_be_bytes();
    file.write_all(&number(messages.len()))?;
    for message in messages {
        file.write_all(&message.timestamp_ms.to_be_bytes())?;
        for part in [message.key.as_bytes(), &message.payload] {
            file.write_all(&number(part.len()))?;
            file.write_all(part)?;
        }
        file.write_all(&number(message.headers.len()))?;
        for part in message
            .headers
            .iter()
            .flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()])
        {
            file.write_all(&number(part.len()))?;
            file.write_all(part)?;
        }
    }
    file.flush()
}

/// A topic that is there while it is measured.
struct Topic<'a> {
    admin: &'a AdminClient<DefaultClientContext>,
    name: Arc<str>,
}

impl<'a> Topic<'a> {
    async fn create(admin: &'a AdminClient<DefaultClientContext>, name: String) -> Self {
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = admin
            .create_topics([&topic], &options)
            .await
            .expect("the broker answers");
        made.into_iter()
            .for_each(|topic| drop(topic.expect("the topic is new")));
        Self {
            admin,
            name: name.into(),
        }
    }

    async fn delete(self) {
        let deleted = self
            .admin
            .delete_topics(&[&self.name], &AdminOptions::new())
            .await
            .expect("the broker answers");
        deleted
            .into_iter()
            .for_each(|topic| drop(topic.expect("the topic was there")));
    }
}

async fn measure(settings: &Settings, load: Load, round: usize) {
    let packets = packets(load);
    let admin: AdminClient<DefaultClientContext> = settings
        .client_config()
        .expect("good settings")
        .create()
        .expect("a client");
    let name = |who: &str| format!("bench.{who}.{}.{round}", load.name);

    let topic = Topic::create(&admin, name("opusflow")).await;
    let messages: Vec<Outgoing> = packets
        .iter()
        .map(|packet| message(&topic.name, &Codec::avro(), packet))
        .collect();
    if let Some(shared) = report::shared() {
        dump(&shared.join(load.name), &messages).expect("the shared folder takes it");
    }
    let bytes = messages
        .iter()
        .map(|message| message.payload.len())
        .sum::<usize>()
        / PACKETS;
    report::figure(
        "kafka",
        &format!("bytes_{}", load.name),
        round,
        bytes as f64,
        "bytes/record",
    );
    let producer = Producer::open(settings).expect("a producer");
    ours(&producer, &topic.name, &packets, load.warm).await;
    let seconds = ours(&producer, &topic.name, &packets, load.records).await;
    report::figure(
        "kafka",
        &format!("opusflow_{}", load.name),
        round,
        load.records as f64 / seconds,
        "records/s",
    );
    producer.close(PATIENCE).await;
    topic.delete().await;

    let topic = Topic::create(&admin, name("librdkafka")).await;
    let messages: Vec<Outgoing> = messages
        .into_iter()
        .map(|message| Outgoing {
            topic: Arc::clone(&topic.name),
            ..message
        })
        .collect();
    let mut config = settings.client_config().expect("good settings");
    // The same bytes in flight, held by librdkafka's own queue.
    config.set(
        "queue.buffering.max.kbytes",
        (settings.in_flight >> 10).to_string(),
    );
    let seconds = tokio::task::spawn_blocking(move || {
        let client = config
            .create_with_context(Acknowledged::default())
            .expect("a client");
        rdkafka(&client, &messages, load.warm);
        rdkafka(&client, &messages, load.records)
    });
    let seconds = seconds.await.expect("it ends");
    report::figure(
        "kafka",
        &format!("librdkafka_{}", load.name),
        round,
        load.records as f64 / seconds,
        "records/s",
    );
    topic.delete().await;
}

fn main() {
    let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS says where Apache Kafka is");
    let settings = Settings::new(Brokers::Addresses(brokers), "bench");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let all = runtime.spawn(async move {
        for round in report::rounds() {
            for load in LOADS {
                measure(&settings, load, round).await;
            }
        }
    });
    runtime.block_on(all).expect("it ends");
}
