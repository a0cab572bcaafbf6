//! Kafka: settings, topics, a producer that outlives outages and fatal errors, and the embedded
//! broker.

mod client;
mod embedded;
mod message;
mod outbox;
mod producer;
mod settings;
mod topics;

pub use embedded::Embedded;
pub use message::{Delivery, DeliveryReport, Outgoing};
pub use producer::Producer;
pub use settings::{Brokers, CreateTopics, Policy, Settings};
pub(crate) use topics::{Topics, health};
