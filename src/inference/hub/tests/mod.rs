//! Pulls from a hub on loopback, whole and broken, honest and not.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

#[allow(dead_code, reason = "the integration tests use other parts of it")]
#[path = "../../../../tests/support/hub.rs"]
mod served;

mod layout;
mod refusals;
mod transfers;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use self::served::{Act, Hub, Repository, Request, git, sha256, weights};
use super::*;
use crate::error::{Kind, Result};
use crate::models::hub::{HubSettings, hashes_of};

const ID: &str = "owner/name";

/// A cache that goes with the test, and what was told during its pulls.
struct Bench {
    home: tempfile::TempDir,
    hub: Hub,
    tries: u32,
    told: Mutex<Vec<String>>,
}

impl Bench {
    fn with(
        repository: Repository,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            home,
            hub: Hub::serve(repository, script),
            tries: 3,
            told: Mutex::default(),
        }
    }

    fn settings(&self, more: &[(&str, &str)]) -> HubSettings {
        let url = self.hub.url();
        let set = [
            ("HF_HOME", self.home.path().to_str().unwrap()),
            ("HF_ENDPOINT", url.as_str()),
        ];
        let known = |name: &str| {
            set.iter()
                .chain(more)
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        HubSettings::of(known).unwrap()
    }

    async fn pull_as(
        &self,
        id: &str,
        (variant, to): (Option<&str>, Option<&Path>),
        more: &[(&str, &str)],
    ) -> Result<Pulled> {
        let id = id.parse().unwrap();
        let retry = RetryPolicy {
            read_timeout: Duration::from_millis(500),
            tries: self.tries,
            first_pause: Duration::from_millis(1),
        };
        let pull = Pull {
            id: &id,
            variant,
            to,
            instead: Path::new("models/owner/name"),
            retry,
        };
        pull.run(&self.settings(more), &|step| {
            self.told.lock().push(format!("{step:?}"))
        })
        .await
    }

    async fn pull(&self) -> Result<Pulled> {
        self.pull_as(ID, (None, None), &[]).await
    }

    fn model(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--name")
    }

    /// Names of the blobs, whole and partial.
    fn blobs(&self) -> Vec<String> {
        names(&self.model().join("blobs"))
    }

    fn told(&self, what: &str) -> bool {
        self.told.lock().iter().any(|step| step.contains(what))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn range(request: &Request) -> Option<usize> {
    request.headers.get("range").map(|range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap()
            .parse()
            .unwrap()
    })
}
