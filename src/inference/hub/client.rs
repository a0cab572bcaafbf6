//! The hub's own answers: what a repository holds at a revision, and why it does not say so.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::retry::RetryPolicy;
use super::selection::{RepoFile, escapes_folder};
use crate::error::{Error, Result};
use crate::models::hub::{FileHash, HubId, HubSettings, is_commit};

/// A listing of a repository of very many files has some megabytes.
const LONGEST_LISTING: usize = 64 << 20;

/// Tries for the listing, at most: where nothing was had yet, there may be no hub at all, and that
/// shall be said soon.
const FIRST_TRIES: u32 = 3;

/// The longest pause that a hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A hub, and how it is asked.
pub(super) struct HubClient {
    client: Client,
    endpoint: Url,
    /// The endpoint as messages show it, without a login.
    shown: String,
    token: Option<String>,
    token_file: String,
    by_hand: String,
    pub retry: RetryPolicy,
}

/// A repository at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<RepoFile>,
}

/// SkipReason something was not had from the hub.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is no use to ask again.
    Final(Error),
    /// It may pass, after this pause where the hub named one.
    Passing(Error, Option<Duration>),
}

/// Part of what the hub answers to `/api/models/ID/revision/REVISION?blobs=true`.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: String,
    size: u64,
}

impl HubClient {
    /// A client; nothing is sent yet. The token goes to the hub alone: a redirection to another
    /// host, port or scheme leaves it out.
    pub fn open(settings: &HubSettings, retry: RetryPolicy, by_hand: String) -> Result<Self> {
        let endpoint = Url::parse(&settings.endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let endpoint = endpoint.ok_or_else(|| {
            Error::config(format!(
                "HF_ENDPOINT is `{}`, which is no http or https URL",
                settings.endpoint
            ))
        })?;
        let client = Client::builder()
            .user_agent(concat!("opusflow/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .connect_timeout(retry.read_timeout)
            .read_timeout(retry.read_timeout)
            .build()
            .map_err(|error| Error::external("cannot set up an HTTP client").because(error))?;
        let mut shown = endpoint.clone();
        // Both fail only for URLs without a host.
        let _ = shown.set_username("").and(shown.set_password(None));
        Ok(Self {
            client,
            shown: shown.as_str().trim_end_matches('/').to_owned(),
            endpoint,
            token: settings.token()?,
            token_file: settings.token_file.display().to_string(),
            by_hand,
            retry,
        })
    }

    /// What the repository holds.
    pub async fn listing(&self, id: &HubId) -> Result<Listing> {
        let mut failed = 0;
        loop {
            match self.listed(id).await {
                Ok(listing) => return Ok(listing),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, pause)) => {
                    failed += 1;
                    if failed >= self.retry.tries.min(FIRST_TRIES) {
                        return Err(error.hint(format!("without the hub: {}", self.by_hand)));
                    }
                    tracing::debug!(%error, "asking the hub again");
                    self.rest(failed, pause).await;
                }
            }
        }
    }

    async fn listed(&self, id: &HubId) -> Result<Listing, Failure> {
        let mut url = self.endpoint.clone();
        let repository = id.repository().split('/');
        let path = ["api", "models"]
            .into_iter()
            .chain(repository)
            .chain(["revision", id.revision()]);
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(path);
        url.set_query(Some("blobs=true"));
        let mut response = self.send(id, self.client.get(url)).await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_LISTING {
                return Err(Failure::Final(Error::external(format!(
                    "the hub's listing of {id} is longer than {LONGEST_LISTING} bytes"
                ))));
            }
        }
        self.read(id, &body).map_err(Failure::Final)
    }

    /// Takes nothing in the answer on trust: hashes become names of files, and so do paths.
    fn read(&self, id: &HubId, body: &[u8]) -> Result<Listing> {
        let strange =
            |what: String| Error::external(format!("the hub {} lists {what} for {id}", self.shown));
        let answer: Answer = serde_json::from_slice(body).map_err(|error| {
            Error::external(format!(
                "the hub {} does not answer as a hub does",
                self.shown
            ))
            .because(error)
        })?;
        if !is_commit(&answer.sha) {
            return Err(strange(format!("{:?} as the commit", answer.sha)));
        }
        let mut files = Vec::new();
        for sibling in answer.siblings {
            let path = sibling.rfilename;
            if escapes_folder(&path) {
                return Err(
                    strange(format!("the path {path:?}, which leads out of a folder,"))
                        .hint("nothing was fetched"),
                );
            }
            let (hash, size) = match &sibling.lfs {
                Some(large) => (
                    FileHash::parse(&large.sha256)
                        .filter(|hash| matches!(hash, FileHash::Sha256(_))),
                    Some(large.size),
                ),
                None => (
                    sibling
                        .blob_id
                        .as_deref()
                        .and_then(FileHash::parse)
                        .filter(|hash| matches!(hash, FileHash::Git(_))),
                    sibling.size,
                ),
            };
            let (Some(hash), Some(size)) = (hash, size) else {
                return Err(strange(format!("{path:?} without its size and its hash")));
            };
            files.push(RepoFile { path, size, hash });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(Listing {
            commit: answer.sha,
            files,
        })
    }

    /// Asks for a file.
    pub async fn file(
        &self,
        id: &HubId,
        commit: &str,
        (file, from): (&str, u64),
    ) -> Result<Response, Failure> {
        let mut url = self.endpoint.clone();
        let path = id
            .repository()
            .split('/')
            .chain(["resolve", commit])
            .chain(file.split('/'));
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(path);
        let request = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        self.send(
            id,
            if from > 0 {
                request.header("range", format!("bytes={from}-"))
            } else {
                request
            },
        )
        .await
    }

    async fn send(&self, id: &HubId, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        if status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            )
        {
            let pause = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let error = Error::external(format!("the hub {} answered {status}", self.shown));
            return Err(Failure::Passing(error, pause.map(Duration::from_secs)));
        }
        Err(Failure::Final(self.refused(id, status, response.headers())))
    }

    /// The hub says no. Its own code tells a gated model from one that is not there, which are both
    /// 401 without a token.
    fn refused(&self, id: &HubId, status: StatusCode, headers: &HeaderMap) -> Error {
        let said = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let (hub, repository, file) = (&self.shown, id.repository(), &self.token_file);
        let page = format!("{hub}/{repository}");
        let token = if self.token.is_some() {
            "the token that was sent is not enough"
        } else {
            "no token was sent"
        };
        match (said("x-error-code"), status) {
            ("GatedRepo", _) => Error::config(format!("{repository} is gated, and {token}")).hint(
                format!("accept its terms at {page}, then put a token of yours into {file}"),
            ),
            ("RevisionNotFound", _) => {
                Error::config(format!("{repository} has no revision `{}`", id.revision()))
                    .hint(format!("see its branches at {page}"))
            }
            ("EntryNotFound", _) => Error::external(format!(
                "the hub {hub} lists a file of {repository} that it does not have"
            )),
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Error::config(format!(
                "the hub {hub} does not give {repository}: it is not there, or it is private or \
                 gated, and {token} ({status})"
            ))
            .hint(format!(
                "check its name; for a private or gated model put a token of yours into {file}"
            )),
            (_, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                Error::config(format!("the hub {hub} has no {id}")).hint(format!(
                    "check name and revision; without the hub: {}",
                    self.by_hand
                ))
            }
            _ => Error::external(format!(
                "the hub {hub} answered {status}: {}",
                said("x-error-message")
            )),
        }
    }

    /// The connection broke. The URL is left out, since a redirected one carries a signature.
    pub fn broken(&self, error: reqwest::Error) -> Failure {
        if error.is_redirect() || error.is_builder() {
            return Failure::Final(
                Error::external(format!("the hub {} cannot be asked", self.shown))
                    .because(error.without_url()),
            );
        }
        Failure::Passing(
            Error::external(format!("the hub {} cannot be reached", self.shown))
                .because(error.without_url()),
            None,
        )
    }

    /// The pause after so many failures in a row.
    pub async fn rest(&self, failed: u32, asked: Option<Duration>) {
        let own = self.retry.first_pause * 2u32.saturating_pow(failed.saturating_sub(1).min(10));
        tokio::time::sleep(asked.unwrap_or(own).min(LONGEST_PAUSE)).await;
    }
}
