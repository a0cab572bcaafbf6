//! Where a registry is and how to enter it.

use std::fmt;
use std::time::Duration;

use crate::redact::{HIDDEN, redact_url};

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
