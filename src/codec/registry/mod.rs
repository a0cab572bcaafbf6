//! A client of schema registries that speak Confluent's REST API (Confluent, Apicurio, Karapace,
//! Redpanda). Subjects follow TopicNameStrategy: `<topic>-value`.

mod client;
mod settings;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use self::client::{Answer, Client};
pub use self::settings::RegistrySettings;
use super::message::{dead_letter_topic, topic};
use super::schema::{COMPATIBILITY, schema_text};
use super::schema_ids::SchemaIds;
use crate::error::{Error, Result};
use crate::packet::PayloadKind;

/// A subject with the id that its present schema has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The subject.
    pub subject: String,
    /// The schema's id.
    pub id: u32,
}

/// What the registry says about this build's schema for a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The subject has no schema yet.
    New,
    /// The schema may follow every earlier one.
    Compatible,
    /// It may not, for these reasons.
    Incompatible(Vec<String>),
}

/// A registry.
pub struct Registry {
    client: Client,
}

impl Registry {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// A config error where the URL is none.
    pub fn build(settings: &RegistrySettings) -> Result<Self> {
        let client = Client::build(settings)?;
        Ok(Self { client })
    }

    /// Registers every schema under its subject of `namespace`, after asking for
    /// BACKWARD_TRANSITIVE there. Schemas that are already registered keep their ids.
    ///
    /// # Errors
    /// A config error where the registry refuses a schema or the login; an external one where it
    /// does not answer.
    pub async fn push(&self, namespace: &str) -> Result<Vec<Registered>> {
        let mut registered = Vec::new();
        for (subject, kind, _) in subjects(namespace) {
            let known = self.set_compatibility(&subject).await?;
            let id = self.register(&subject, kind).await?;
            // Some registries hold a level only for a subject that exists.
            if !known && !self.set_compatibility(&subject).await? {
                return Err(Error::external(format!(
                    "the registry {} does not take a compatibility level for {subject}",
                    self.client.base
                )));
            }
            registered.push(Registered { subject, id });
        }
        Ok(registered)
    }

    /// Asks for every subject of `namespace` whether this build's schema may follow the registered
    /// ones. Changes nothing.
    ///
    /// # Errors
    /// As [`Registry::push`].
    pub async fn check(&self, namespace: &str) -> Result<Vec<(String, Verdict)>> {
        let mut verdicts = Vec::new();
        for (subject, kind, _) in subjects(namespace) {
            let path = ["compatibility", "subjects", &subject, "versions"];
            let answer = self
                .client
                .ask(Method::POST, &path, true, Some(schema_body(kind)))
                .await?;
            let verdict = match (answer.status, answer.body["is_compatible"].as_bool()) {
                (StatusCode::NOT_FOUND, _) => Verdict::New,
                (status, Some(true)) if status.is_success() && !self.exists(&subject).await? => {
                    Verdict::New
                }
                (status, Some(true)) if status.is_success() => Verdict::Compatible,
                (status, Some(false)) if status.is_success() => {
                    Verdict::Incompatible(reasons(&answer.body))
                }
                _ => {
                    return Err(self
                        .client
                        .refused(&format!("cannot check {subject}"), &answer));
                }
            };
            verdicts.push((subject, verdict));
        }
        Ok(verdicts)
    }

    /// The ids that the wire format needs, registering what is missing where `register` says so.
    ///
    /// # Errors
    /// As [`Registry::push`]; a config error where a schema is not registered and may not be.
    pub async fn ids(&self, namespace: &str, register: bool) -> Result<SchemaIds> {
        let mut ids = SchemaIds::all(0);
        if register {
            let registered = self.push(namespace).await?;
            subjects(namespace)
                .zip(registered)
                .for_each(|((_, _, (kind, dead)), entry)| ids.set(kind, dead, entry.id));
            return Ok(ids);
        }
        for (subject, schema, (kind, dead)) in subjects(namespace) {
            ids.set(kind, dead, self.lookup(&subject, schema).await?);
        }
        Ok(ids)
    }

    async fn register(&self, subject: &str, kind: PayloadKind) -> Result<u32> {
        let answer = self
            .client
            .ask(
                Method::POST,
                &["subjects", subject, "versions"],
                false,
                Some(schema_body(kind)),
            )
            .await?;
        self.id(&format!("cannot register the schema of {subject}"), &answer)
    }

    async fn lookup(&self, subject: &str, kind: PayloadKind) -> Result<u32> {
        let answer = self
            .client
            .ask(
                Method::POST,
                &["subjects", subject],
                false,
                Some(schema_body(kind)),
            )
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            let error = Error::config(format!(
                "the registry {} does not have this build's schema of {subject}",
                self.client.base
            ));
            return Err(error.hint("`opusflow schemas push` registers it"));
        }
        self.id(&format!("cannot look up the schema of {subject}"), &answer)
    }

    async fn exists(&self, subject: &str) -> Result<bool> {
        let answer = self
            .client
            .ask(Method::GET, &["subjects", subject, "versions"], false, None)
            .await?;
        Ok(answer.status.is_success()
            && answer
                .body
                .as_array()
                .is_none_or(|versions| !versions.is_empty()))
    }

    /// Whether the registry took it; it may not while the subject has no schema.
    async fn set_compatibility(&self, subject: &str) -> Result<bool> {
        let answer = self
            .client
            .ask(
                Method::PUT,
                &["config", subject],
                false,
                Some(json!({ "compatibility": COMPATIBILITY })),
            )
            .await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.client.refused(
                &format!("cannot set the compatibility of {subject}"),
                &answer,
            )),
        }
    }

    fn id(&self, doing: &str, answer: &Answer) -> Result<u32> {
        let id = answer.body["id"]
            .as_u64()
            .and_then(|id| u32::try_from(id).ok());
        id.filter(|_| answer.status.is_success())
            .ok_or_else(|| self.client.refused(doing, answer))
    }
}

fn schema_body(kind: PayloadKind) -> Value {
    json!({ "schemaType": "AVRO", "schema": schema_text(kind) })
}

fn reasons(body: &Value) -> Vec<String> {
    body["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|message| {
            message
                .as_str()
                .map_or_else(|| message.to_string(), str::to_owned)
        })
        .collect()
}

/// Every subject of a namespace: its name, its schema, and which records travel under it (`true`
/// for the dead letters about them).
fn subjects(namespace: &str) -> impl Iterator<Item = (String, PayloadKind, (PayloadKind, bool))> {
    let carried = || {
        PayloadKind::ALL
            .into_iter()
            .filter(|kind| *kind != PayloadKind::DeadLetter)
    };
    let records = carried().map(|kind| {
        (
            format!("{}-value", topic(namespace, kind)),
            kind,
            (kind, false),
        )
    });
    let dead = carried().map(|kind| {
        (
            format!("{}-value", dead_letter_topic(namespace, kind)),
            PayloadKind::DeadLetter,
            (kind, true),
        )
    });
    records.chain(dead).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests;
