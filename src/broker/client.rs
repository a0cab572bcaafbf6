//! What librdkafka's clients tell us: log lines go to tracing, and the brokers' absence is said once, not at every attempt to reach them.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Whether the brokers can be reached, as far as a client knows.
pub(super) struct Link {
    bootstrap: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    down: bool,
    reason: Option<String>,
}

impl Link {
    /// Taken as up until an error says otherwise.
    pub(super) fn new(bootstrap: &str) -> Arc<Self> {
        Arc::new(Self { bootstrap: bootstrap.to_owned(), state: Mutex::default() })
    }

    /// Whether no broker could be reached at the last attempt.
    pub(super) fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// The last error of a connection.
    pub(super) fn reason(&self) -> Option<String> {
        self.state.lock().reason.clone()
    }

    /// A broker answered.
    pub(super) fn up(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.down) {
            state.reason = None;
            drop(state);
            tracing::info!(brokers = %self.bootstrap, "broker up");
        }
    }

    /// librdkafka reported `error`.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let mut state = self.state.lock();
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            tracing::debug!(%error, reason, "kafka");
            state.reason = Some(reason.to_owned());
            return;
        }
        if !std::mem::replace(&mut state.down, true) {
            let reason = state.reason.clone().unwrap_or_else(|| reason.to_owned());
            drop(state);
            tracing::warn!(brokers = %self.bootstrap, reason, "broker down, waiting for it");
        }
    }
}

/// A log line of librdkafka. Its complaints about connections repeat at every attempt and are told by [`Link`] already.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let connection = matches!(facility, "FAIL" | "ERROR" | "REQTMOUT" | "MAXPOLL" | "GETPID");
    match level {
        _ if connection => tracing::debug!(target: "librdkafka", facility, message, "kafka client"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, message, "kafka client");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, message, "kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, message, "kafka client"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, message, "kafka client"),
    }
}

/// The context of clients that only ask.
pub(super) struct Quiet(pub(super) Arc<Link>);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broker_of_many_is_not_an_outage() {
        let link = Link::new("a:1,b:1");
        link.error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "a refused");
        assert!(!link.is_down());
        link.error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        assert!(link.is_down());
        assert_eq!(link.reason().as_deref(), Some("a refused"));
        link.up();
        assert!(!link.is_down() && link.reason().is_none());
    }
}
