//! The requests to a registry: its URL, login, media type and patience, and what its refusals mean.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::settings::RegistrySettings;
use crate::error::{Error, Result};
use crate::redact::redact_url;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ATTEMPTS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Client {
    /// May carry a login, which the HTTP client takes out of it.
    url: Url,
    /// The same as messages show it.
    pub base: String,
    login: Option<(String, String)>,
    client: reqwest::Client,
}

pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Client {
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

    /// What an answer that is no success means.
    pub fn refused(&self, doing: &str, answer: &Answer) -> Error {
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
    pub async fn ask(
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
