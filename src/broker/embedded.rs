//! The broker inside the process: librdkafka's mock cluster, which speaks Kafka's protocol on a
//! loopback port. It holds records in memory only, trims a partition silently at 5 MiB or 100,000
//! batches, and forgets everything when it stops: for demos and tests, beside a durable sink.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::{Error, Result};

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Command = Box<dyn FnOnce(&Cluster) + Send>;

/// A running embedded broker. It lives on a thread of its own, because the cluster's handle cannot
/// leave the thread that made it, until `stop` or until it is dropped. One is meant to serve the whole
/// process.
pub struct Embedded {
    bootstrap: String,
    commands: Mutex<Option<SyncSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    /// How many bytes of a partition are kept.
    pub const RETAINED_BYTES: usize = 5 << 20;

    /// Starts the broker on a free loopback port.
    ///
    /// # Errors
    /// An external error where the port or the thread cannot be had.
    pub fn start() -> Result<Self> {
        let (commands, inbox) = sync_channel(1);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("kafka-embedded".to_owned())
            .spawn(move || serve(&ready, &inbox))
            .map_err(|error| {
                Error::external("cannot start the embedded broker's thread").because(error)
            })?;
        let bootstrap = started
            .recv()
            .map_err(|_| Error::bug("the embedded broker's thread ended before it began"))??;
        Ok(Self {
            bootstrap,
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Its address, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Creates the topics that do not exist yet, each with one partition. A topic that a client
    /// asks for unannounced gets four.
    ///
    /// # Errors
    /// A config error where a topic's name is not allowed; an external one after `stop`.
    pub fn create_topics(&self, topics: &[String]) -> Result<()> {
        for topic in topics {
            let name = topic.clone();
            match self.with(move |cluster| cluster.create_topic(&name, 1, 1))? {
                Ok(()) | Err(KafkaError::MockCluster(RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err(error) => {
                    return Err(Error::config(format!(
                        "the embedded broker cannot create topic {topic}"
                    ))
                    .because(error));
                }
            }
        }
        Ok(())
    }

    /// Ends the broker and waits for it; its records are gone.
    pub fn stop(&self) {
        drop(self.commands.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // The thread has nothing to say, and a panic in it was already printed.
            let _ = thread.join();
        }
    }

    /// Runs `work` on the broker's thread.
    pub(super) fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cluster) -> T + Send + 'static,
    ) -> Result<T> {
        let stopped = || Error::external("the embedded broker has stopped");
        let (answer, result) = sync_channel(1);
        // Nobody waits for an answer that is not taken.
        let command: Command = Box::new(move |cluster| drop(answer.send(work(cluster))));
        self.commands
            .lock()
            .as_ref()
            .and_then(|commands| commands.send(command).ok())
            .ok_or_else(stopped)?;
        result.recv().map_err(|_| stopped())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(ready: &SyncSender<Result<String>>, commands: &Receiver<Command>) {
    let cluster = match Cluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            let error = Error::external("cannot start the embedded broker").because(error);
            return drop(ready.send(Err(error)));
        }
    };
    if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
        commands.iter().for_each(|command| command(&cluster));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};

    use super::*;

    #[test]
    fn topics_have_one_partition_and_may_be_created_twice() {
        let broker = Embedded::start().unwrap();
        let topics = ["a.v1".to_owned(), "b.v1".to_owned()];
        broker.create_topics(&topics).unwrap();
        broker.create_topics(&topics).unwrap();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .create()
            .unwrap();
        let metadata = client.fetch_metadata(None, Duration::from_secs(5)).unwrap();
        let mut found: Vec<_> = metadata
            .topics()
            .iter()
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect();
        found.sort();
        assert_eq!(found, [("a.v1".to_owned(), 1), ("b.v1".to_owned(), 1)]);
    }

    #[test]
    fn a_stopped_broker_says_so() {
        let broker = Embedded::start().unwrap();
        broker.stop();
        broker.stop();
        assert!(
            broker
                .create_topics(&["a".to_owned()])
                .unwrap_err()
                .to_string()
                .contains("stopped")
        );
    }
}
