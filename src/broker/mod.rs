//! Kafka: settings, topics, a producer that outlives outages and fatal errors, and the embedded
//! broker.

mod client;
mod embedded;
mod outbox;
mod producer;
mod settings;
mod topics;

pub use embedded::Embedded;
pub use producer::{Delivery, Outgoing, Producer, Report};
pub use settings::{Brokers, CreateTopics, Policy, Settings};
pub use topics::{Health, Topics, health};
