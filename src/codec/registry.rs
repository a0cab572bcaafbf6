//! A client of schema registries that speak Confluent's REST API (Confluent, Apicurio, Karapace,
//! Redpanda). Subjects follow TopicNameStrategy: `<topic>-value`.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::message::{dead_letter_topic, topic};
use super::schema::{COMPATIBILITY, schema_text};
use super::schema_ids::SchemaIds;
use crate::error::{Error, Result};
use crate::packet::PayloadKind;
use crate::redact::{HIDDEN, redact_url};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ATTEMPTS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Where the registry is and how to enter it.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Its base, for example `http://127.0.0.1:8081` or `https://host/apis/ccompat/v7`. May carry
    /// `user:password@`.
    pub url: String,
    /// User and password of basic authentication; they win over those in the URL.
    pub login: Option<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
}

impl RegistrySettings {
    /// The registry at `url`, without authentication, 10 s a request.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            login: None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = self.login.as_ref().map(|_| HIDDEN);
        f.debug_struct("RegistrySettings")
            .field("url", &redact_url(&self.url))
            .field("login", &login)
            .field("timeout", &self.timeout)
            .finish()
    }
}

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
    /// May carry a login, which the HTTP client takes out of it.
    url: Url,
    /// The same as messages show it.
    base: String,
    login: Option<(String, String)>,
    client: reqwest::Client,
}

struct Answer {
    status: StatusCode,
    body: Value,
}

impl Registry {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// A config error where the URL is none.
    pub fn build(settings: &RegistrySettings) -> Result<Self> {
        let url = Url::parse(&settings.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Error::config("the registry's url is not an http or https URL"))?;
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .build()
            .map_err(|error| Error::external("cannot set up an HTTP client").because(error))?;
        Ok(Self {
            base: redact_url(url.as_str()),
            url,
            login: settings.login.clone(),
            client,
        })
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
                    self.base
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
                _ => return Err(self.refused(&format!("cannot check {subject}"), &answer)),
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

    /// The text of the schema with this id; errors as of [`Registry::push`].
    pub async fn schema(&self, id: u32) -> Result<String> {
        let answer = self
            .ask(
                Method::GET,
                &["schemas", "ids", &id.to_string()],
                false,
                None,
            )
            .await?;
        match answer.body["schema"].as_str() {
            Some(text) if answer.status.is_success() => Ok(text.to_owned()),
            _ => Err(self.refused(&format!("cannot fetch schema {id}"), &answer)),
        }
    }

    async fn register(&self, subject: &str, kind: PayloadKind) -> Result<u32> {
        let answer = self
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
                self.base
            ));
            return Err(error.hint("`opusflow schemas push` registers it"));
        }
        self.id(&format!("cannot look up the schema of {subject}"), &answer)
    }

    async fn exists(&self, subject: &str) -> Result<bool> {
        let answer = self
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
            _ => Err(self.refused(
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
            .ok_or_else(|| self.refused(doing, answer))
    }

    fn refused(&self, doing: &str, answer: &Answer) -> Error {
        let said = answer.body["message"]
            .as_str()
            .unwrap_or("without a message");
        let message = format!(
            "{doing}: the registry {} answered {}: {said}",
            self.base,
            answer.status.as_u16()
        );
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::config(message).hint("check the registry's login")
            }
            StatusCode::CONFLICT => Error::config(message)
                .hint("the schema may not follow the registered ones: use another namespace"),
            status if status.is_client_error() => Error::config(message),
            _ => Error::external(message),
        }
    }

    /// One request, repeated with growing pauses while the registry cannot be reached or answers
    /// 429 or 5xx.
    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        verbose: bool,
        body: Option<Value>,
    ) -> Result<Answer> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(path);
        if verbose {
            url.set_query(Some("verbose=true"));
        }
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let mut request = self
                .client
                .request(method.clone(), url.clone())
                .header("accept", MEDIA_TYPE);
            if let Some((user, password)) = &self.login {
                request = request.basic_auth(user, Some(password));
            }
            if let Some(body) = &body {
                request = request
                    .header("content-type", MEDIA_TYPE)
                    .body(body.to_string());
            }
            match answer(request).await {
                Ok(answer) if !repeatable(answer.status) || attempt == ATTEMPTS => {
                    return Ok(answer);
                }
                Err(error) if attempt == ATTEMPTS => {
                    return Err(Error::external(format!(
                        "the registry {} does not answer",
                        self.base
                    ))
                    .because(error));
                }
                Ok(answer) => tracing::debug!(
                    status = answer.status.as_u16(),
                    attempt,
                    "registry busy, asking again"
                ),
                Err(error) => {
                    tracing::debug!(%error, attempt, "registry unreachable, asking again")
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    // An error's text would show the URL, whose query may hold a secret.
    let response = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    let bytes = response
        .bytes()
        .await
        .map_err(reqwest::Error::without_url)?;
    Ok(Answer {
        status,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    })
}

fn repeatable(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
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
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    type Request = (String, String, Value);

    /// A registry of a few lines: `reply` gets method and path, body and the number of the request.
    async fn serve(
        reply: impl Fn(&str, &Value, usize) -> (u16, Value) + Send + 'static,
    ) -> (RegistrySettings, Arc<Mutex<Vec<Request>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://me:s%20ecret@{}/base/",
            listener.local_addr().unwrap()
        );
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let (head, body) = loop {
                    socket.read_buf(&mut bytes).await.unwrap();
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head.lines().find_map(|line| {
                        line.to_lowercase()
                            .strip_prefix("content-length: ")
                            .map(str::to_owned)
                    });
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        break (
                            head.to_owned(),
                            serde_json::from_str(body).unwrap_or(Value::Null),
                        );
                    }
                };
                let line = head
                    .lines()
                    .next()
                    .unwrap()
                    .trim_end_matches(" HTTP/1.1")
                    .to_owned();
                let number = requests.lock().len();
                let (status, answer) = reply(&line, &body, number);
                requests.lock().push((line, head, body));
                let answer = answer.to_string();
                let response = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: \
                     close\r\n\r\n{answer}",
                    answer.len()
                );
                socket.write_all(response.as_bytes()).await.unwrap();
            }
        });
        (RegistrySettings::at(url), seen)
    }

    #[tokio::test]
    async fn push_asks_for_the_level_and_registers_every_subject() {
        let (settings, seen) = serve(|line, _, number| match line.split_once(' ').unwrap() {
            // As a registry that keeps levels only for subjects that exist.
            ("PUT", _) if number % 3 == 0 => (404, json!({ "error_code": 40401 })),
            ("PUT", _) => (200, json!({ "compatibility": "BACKWARD_TRANSITIVE" })),
            _ => (200, json!({ "id": 100 + number })),
        })
        .await;
        let ids = Registry::build(&settings)
            .unwrap()
            .ids("media", true)
            .await
            .unwrap();
        let seen = seen.lock();
        assert_eq!(seen.len(), subjects("media").count() * 3);
        let (line, head, body) = &seen[1];
        assert_eq!(line, "POST /base/subjects/media.frames.v1-value/versions");
        assert_eq!(body["schema"], schema_text(PayloadKind::Frame));
        assert!(
            head.contains("Basic bWU6cyBlY3JldA=="),
            "the URL's login, decoded: {head}"
        );
        assert_eq!(seen[0].2["compatibility"], "BACKWARD_TRANSITIVE");
        assert!(
            seen.iter()
                .any(|(line, ..)| line.ends_with("/subjects/media.frames.v1.dlq-value/versions"))
        );
        let mut expected = SchemaIds::all(0);
        for (index, (_, _, (kind, dead))) in subjects("media").enumerate() {
            expected.set(kind, dead, 101 + 3 * index as u32);
        }
        assert_eq!(ids, expected);
    }

    #[tokio::test]
    async fn verdicts_tell_new_compatible_and_broken() {
        let (settings, _) = serve(|line, _, _| {
            let compatible = line.starts_with("POST /base/compatibility/subjects/")
                && line.ends_with("/versions?verbose=true");
            match line {
                _ if line.starts_with("GET") => (200, json!([1, 2])),
                _ if !compatible => (500, Value::Null),
                _ if line.contains("captions") => (
                    200,
                    json!({ "is_compatible": false, "messages": ["field gone"] }),
                ),
                _ if line.contains("dlq") => {
                    (404, json!({ "error_code": 40401, "message": "not found" }))
                }
                _ => (200, json!({ "is_compatible": true })),
            }
        })
        .await;
        let verdicts = Registry::build(&settings)
            .unwrap()
            .check("m")
            .await
            .unwrap();
        let of = |subject: &str| {
            verdicts
                .iter()
                .find(|(name, _)| name == subject)
                .unwrap()
                .1
                .clone()
        };
        assert_eq!(of("m.frames.v1-value"), Verdict::Compatible);
        assert_eq!(
            of("m.captions.v1-value"),
            Verdict::Incompatible(vec!["field gone".to_owned()])
        );
        assert_eq!(of("m.events.v1.dlq-value"), Verdict::New);
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        let (settings, _) = serve(|_, _, _| (404, json!({ "message": "Subject not found" }))).await;
        let error = Registry::build(&settings)
            .unwrap()
            .ids("media", false)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("media.frames.v1-value") && error.contains("schemas push"),
            "{error}"
        );
        assert!(!error.contains("ecret"), "{error}");
        let (settings, _) = serve(|_, _, _| (409, json!({ "message": "incompatible" }))).await;
        assert!(
            Registry::build(&settings)
                .unwrap()
                .register("s", PayloadKind::Frame)
                .await
                .unwrap_err()
                .to_string()
                .contains("409: incompatible")
        );
        assert!(Registry::build(&RegistrySettings::at("localhost:8081")).is_err());
    }

    #[tokio::test]
    async fn a_busy_registry_is_asked_again() {
        let (settings, seen) = serve(|_, _, number| {
            if number == 0 {
                (503, Value::Null)
            } else {
                (200, json!({ "schema": "x" }))
            }
        })
        .await;
        assert_eq!(
            Registry::build(&settings).unwrap().schema(7).await.unwrap(),
            "x"
        );
        assert_eq!(
            seen.lock()
                .iter()
                .map(|(line, ..)| line.as_str())
                .collect::<Vec<_>>(),
            ["GET /base/schemas/ids/7"; 2]
        );
    }

    #[test]
    fn settings_hide_the_login() {
        let mut settings = RegistrySettings::at("http://me:hush@host/x");
        settings.login = Some(("you".to_owned(), "quiet".to_owned()));
        let shown = format!("{settings:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("quiet") && shown.contains("host"),
            "{shown}"
        );
    }
}
