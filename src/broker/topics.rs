//! Topics at start, and whether the brokers can be reached at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::client::{Link, Quiet};
use super::settings::{Brokers, Policy, Settings};
use crate::codec::{self, PayloadKind};
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(15);

/// The topics of a namespace.
pub struct Topics<'a>(&'a Settings);

/// What the brokers say about themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
    /// Partitions of each topic of the namespace.
    pub topics: BTreeMap<String, usize>,
}

impl<'a> Topics<'a> {
    /// Those of `settings`.
    pub const fn new(settings: &'a Settings) -> Self {
        Self(settings)
    }

    /// The names of the topics that these kinds of `records` go to, and dead `letters` about these.
    pub fn names(
        &self,
        records: &BTreeSet<PayloadKind>,
        letters: &BTreeSet<PayloadKind>,
    ) -> Vec<String> {
        let namespace = &self.0.namespace;
        // A dead letter has no topic but that of what it is about.
        let carried = |kinds: &BTreeSet<PayloadKind>| {
            kinds
                .iter()
                .copied()
                .filter(|kind| *kind != PayloadKind::DeadLetter)
                .collect::<Vec<_>>()
        };
        let records = carried(records)
            .into_iter()
            .map(|kind| codec::topic(namespace, kind));
        records
            .chain(
                carried(letters)
                    .into_iter()
                    .map(|kind| codec::dead_letter_topic(namespace, kind)),
            )
            .collect()
    }

    /// Sees to it that the topics for these kinds of `records`, and for dead `letters` about these,
    /// exist, by the policy of the settings. On the embedded broker they are always created.
    ///
    /// # Errors
    /// A config error where a topic is missing and may not be created, or cannot be; an external
    /// one where no broker answers in 15 s.
    pub async fn ensure(
        &self,
        records: &BTreeSet<PayloadKind>,
        letters: &BTreeSet<PayloadKind>,
    ) -> Result<()> {
        let names = self.names(records, letters);
        match (&self.0.brokers, self.0.create_topics.policy) {
            (Brokers::Embedded(embedded), _) => embedded.create_topics(&names),
            (_, Policy::Never) => Ok(()),
            (_, policy) => {
                let admin = admin(self.0)?;
                let (admin, there) =
                    partitions(admin, self.0.brokers.bootstrap().to_owned(), PATIENCE).await?;
                let missing: Vec<&String> = names
                    .iter()
                    .filter(|name| !there.topics.contains_key(*name))
                    .collect();
                match policy {
                    _ if missing.is_empty() => Ok(()),
                    Policy::Create => self.create(&admin, &missing).await,
                    _ => Err(absent(&missing)),
                }
            }
        }
    }

    async fn create(&self, admin: &AdminClient<Quiet>, names: &[&String]) -> Result<()> {
        let wanted = &self.0.create_topics;
        let number =
            |count: Option<u32>| count.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
        let (partitions, replicas) = (number(wanted.partitions), number(wanted.replication));
        let topics: Vec<_> = names
            .iter()
            .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)))
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(PATIENCE))
            .operation_timeout(Some(PATIENCE));
        let unanswered =
            |error| Error::external("the brokers did not create the topics").because(error);
        for result in admin
            .create_topics(&topics, &options)
            .await
            .map_err(unanswered)?
        {
            match result {
                Ok(topic) => tracing::info!(topic, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let hint = "check kafka.create_topics and the permissions of the login";
                    return Err(Error::config(format!("cannot create topic {topic}"))
                        .because(code)
                        .hint(hint));
                }
            }
        }
        Ok(())
    }
}

/// Asks the brokers who they are, for as long as `patience`.
///
/// # Errors
/// An external error where none answers; a config error where the settings are refused.
pub async fn health(settings: &Settings, patience: Duration) -> Result<Health> {
    let (_, mut health) = partitions(
        admin(settings)?,
        settings.brokers.bootstrap().to_owned(),
        patience,
    )
    .await?;
    let prefix = format!("{}.", settings.namespace);
    health.topics.retain(|name, _| name.starts_with(&prefix));
    Ok(health)
}

fn admin(settings: &Settings) -> Result<AdminClient<Quiet>> {
    let context = Quiet(Link::new(settings.brokers.bootstrap()));
    settings
        .client_config()?
        .create_with_context(context)
        .map_err(|error| settings.refused(error))
}

/// All topics are listed, because asking for one by name would create it where the broker creates
/// topics by itself.
async fn partitions(
    admin: AdminClient<Quiet>,
    bootstrap: String,
    patience: Duration,
) -> Result<(AdminClient<Quiet>, Health)> {
    let ask = move || {
        let metadata = admin
            .inner()
            .fetch_metadata(None, patience)
            .map_err(|error| {
                let reason = admin
                    .inner()
                    .context()
                    .0
                    .reason()
                    .map_or_else(|| error.to_string(), |reason| format!("{error}: {reason}"));
                Error::external(format!("no Kafka broker answers at {bootstrap}: {reason}"))
                    .hint("check kafka.brokers and kafka.properties")
            })?;
        let brokers = metadata
            .brokers()
            .iter()
            .map(|broker| format!("{}:{}", broker.host(), broker.port()))
            .collect();
        let topics = metadata
            .topics()
            .iter()
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect();
        Ok((admin, Health { brokers, topics }))
    };
    tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| Error::bug("asking the brokers panicked").because(error))?
}

fn absent(missing: &[&String]) -> Error {
    let list = missing
        .iter()
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    Error::config(format!("Kafka lacks these topics: {list}"))
        .hint("create them, or set kafka.create_topics.policy to `create`")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Embedded;

    #[tokio::test]
    async fn missing_topics_are_named_by_verify_and_present_ones_pass() {
        let broker = Arc::new(Embedded::start().unwrap());
        let by_address = Settings::new(Brokers::Addresses(broker.bootstrap().to_owned()), "media");
        let (records, letters) = (
            BTreeSet::from([PayloadKind::Caption]),
            BTreeSet::from([PayloadKind::Segment]),
        );
        let error = Topics::new(&by_address)
            .ensure(&records, &letters)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(": media.captions.v1, media.segments.v1.dlq (")
                && error.contains("create_topics"),
            "{error}"
        );
        let embedded = Settings::new(Brokers::Embedded(broker), "media");
        Topics::new(&embedded)
            .ensure(&records, &letters)
            .await
            .unwrap();
        Topics::new(&by_address)
            .ensure(&records, &letters)
            .await
            .unwrap();
        let health = health(&by_address, Duration::from_secs(5)).await.unwrap();
        assert_eq!(
            (health.brokers.len(), health.topics["media.captions.v1"]),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn unreachable_brokers_are_an_external_error() {
        let nowhere = Settings::new(Brokers::Addresses("127.0.0.1:1".to_owned()), "media");
        let error = health(&nowhere, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(
            error.is_transient() && error.to_string().contains("127.0.0.1:1"),
            "{error}"
        );
    }
}
