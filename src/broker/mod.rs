//! Kafka: producer, topics, and the embedded broker.
