//! What librdkafka's clients tell us: log lines go to tracing, and the brokers' absence is said
//! once, not at every attempt to reach them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::telemetry::names;

/// Whether the brokers can be reached, as far as a client knows.
pub(super) struct Link {
    bootstrap: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    down: bool,
    was_up: bool,
    /// Since when connections fail while nothing is acknowledged, and how.
    failing: Option<(Instant, String)>,
}

impl Link {
    /// How long connections fail before that is called an outage: reconnecting once is none.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Taken as up until an error says otherwise.
    pub(super) fn new(bootstrap: &str) -> Arc<Self> {
        Arc::new(Self {
            bootstrap: bootstrap.to_owned(),
            state: Mutex::default(),
        })
    }

    /// Whether the brokers are taken as gone: since the last acknowledgement none could be reached.
    pub(super) fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// The last error of a connection.
    pub(super) fn reason(&self) -> Option<String> {
        self.state
            .lock()
            .failing
            .as_ref()
            .map(|(_, reason)| reason.clone())
    }

    /// A broker answered.
    pub(super) fn up(&self) {
        let mut state = self.state.lock();
        state.was_up = true;
        state.failing = None;
        if std::mem::take(&mut state.down) {
            drop(state);
            tracing::info!(brokers = %self.bootstrap, "broker up");
        }
    }

    /// librdkafka reported `error`.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        count(error);
        let mut state = self.state.lock();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return self.down(&mut state);
        }
        let since = state
            .failing
            .take()
            .map_or_else(Instant::now, |(since, _)| since);
        state.failing = Some((since, reason.to_owned()));
    }

    /// Time passed. librdkafka does not always report that all brokers are down, so that lasting
    /// failure counts too, where somebody waits or no broker has answered yet.
    pub(super) fn tick(&self, waiting: bool) {
        let mut state = self.state.lock();
        let lasting = state
            .failing
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() >= Self::PATIENCE);
        if lasting && (waiting || !state.was_up) {
            self.down(&mut state);
        }
    }

    fn down(&self, state: &mut State) {
        if !std::mem::replace(&mut state.down, true) {
            let reason = state.failing.as_ref().map_or("", |(_, reason)| reason);
            tracing::warn!(brokers = %self.bootstrap, reason, "broker down, waiting for it");
        }
    }
}

/// Counts an error that librdkafka reported, under its kind.
pub(super) fn count(error: &KafkaError) {
    names::BROKER_ERRORS.counter(&[kind(error)]).increment(1);
}

fn kind(error: &KafkaError) -> &'static str {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::AllBrokersDown) => "all_brokers_down",
        Some(Code::BrokerTransportFailure) => "transport",
        Some(Code::Resolve) => "resolve",
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState,
        ) => "authentication",
        Some(Code::SSL) => "tls",
        Some(Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut) => "timeout",
        Some(Code::Fatal) => "fatal",
        _ => "other",
    }
}

/// A log line of librdkafka. Its complaints about connections repeat at every attempt, and
/// [`Link`] reports them already.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let connection = matches!(
        facility,
        "FAIL" | "ERROR" | "REQTMOUT" | "MAXPOLL" | "GETPID"
    );
    match level {
        _ if connection => tracing::debug!(target: "librdkafka", facility, message, "kafka client"),
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, message, "kafka client");
        }
        RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, message, "kafka client")
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, message, "kafka client")
        }
        RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, message, "kafka client")
        }
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
        link.error(
            &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "a refused",
        );
        assert!(!link.is_down());
        link.error(
            &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
            "2/2 brokers are down",
        );
        assert!(link.is_down());
        assert_eq!(link.reason().as_deref(), Some("a refused"));
        link.up();
        assert!(!link.is_down() && link.reason().is_none());
    }

    #[test]
    fn failure_is_an_outage_once_it_lasts_and_somebody_waits() {
        let link = Link::new("a:1");
        link.up();
        link.error(
            &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "a refused",
        );
        link.tick(true);
        assert!(!link.is_down(), "it may come back at once");
        link.state.lock().failing.as_mut().unwrap().0 -= Link::PATIENCE;
        link.error(
            &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "a refused again",
        );
        link.tick(false);
        assert!(!link.is_down(), "nobody waits");
        link.tick(true);
        assert!(link.is_down());
    }
}
