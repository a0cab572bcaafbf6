//! A pull from its listing to the model's folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};

use super::client::HubClient;
use super::destination::Destination;
use super::download::Download;
use super::progress::{Step, Watch};
use super::retry::RetryPolicy;
use super::selection;
use crate::error::{Error, Result};
use crate::models::ModelSummary;
use crate::models::hub::{HubId, HubSettings};

/// Files that are fetched at a time.
const CONCURRENT_DOWNLOADS: usize = 4;

/// A model that is wanted from the hub.
#[derive(Debug, Clone)]
pub struct Pull<'a> {
    /// The model.
    pub id: &'a HubId,
    /// Weights under another name, such as `fp16`, where there are any.
    pub variant: Option<&'a str>,
    /// The folder that it is put into; the cache without one.
    pub to: Option<&'a Path>,
    /// The folder to fill by hand where there is no hub, for messages.
    pub instead: &'a Path,
    /// How much the hub may try ours.
    pub retry: RetryPolicy,
}

/// A model that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its folder.
    pub folder: PathBuf,
    /// The commit that the revision is.
    pub commit: String,
    /// Bytes that had to be fetched for it.
    pub fetched: u64,
}

impl Pull<'_> {
    /// Fetches what is not there yet.
    ///
    /// # Errors
    /// Config: the hub does not know the model or does not give it to this token, it holds nothing
    /// that is read here, or `HF_HUB_OFFLINE` is set and the cache does not have it. External: the
    /// hub cannot be reached, breaks off again and again, or sends other bytes than it lists; the
    /// disk cannot be written. What was fetched by then is there when it is pulled again.
    pub async fn run(&self, settings: &HubSettings, watch: Watch<'_>) -> Result<Pulled> {
        if settings.offline {
            return self.cached(settings);
        }
        let hub = HubClient::open(settings, self.retry, self.by_hand())?;
        let listing = hub.listing(self.id).await?;
        let selection = selection::select(listing.files, self.id, self.variant)?;
        let bytes = selection.files.iter().map(|file| file.size).sum();
        watch(Step::Chosen {
            commit: &listing.commit,
            files: selection.files.len(),
            bytes,
            left: &selection.left,
        });
        let destination = match self.to {
            Some(folder) => Destination::Folder {
                folder,
                commit: &listing.commit,
            },
            None => Destination::Cache {
                cache: &settings.cache,
                id: self.id,
                commit: &listing.commit,
            },
        };
        let mut seen = BTreeSet::new();
        // Two files of one content are one blob of the cache.
        let once = selection
            .files
            .iter()
            .filter(|file| seen.insert(destination.paths(file).whole))
            .collect::<Vec<_>>();
        let fetches = once.into_iter().map(|file| Download {
            hub: &hub,
            destination: &destination,
            id: self.id,
            commit: &listing.commit,
            file,
            watch,
        });
        let fetched = futures::stream::iter(fetches)
            .map(Download::run)
            .buffer_unordered(CONCURRENT_DOWNLOADS)
            .try_collect::<Vec<u64>>()
            .await?;
        // Only when all is there, so that a snapshot that is found is a whole one.
        let folder = destination.publish(&selection.files)?;
        ModelSummary::read(&folder)
            .map_err(|error| error.context(format_args!("{} was fetched, but", self.id)))?;
        Ok(Pulled {
            folder,
            commit: listing.commit,
            fetched: fetched.iter().sum(),
        })
    }

    fn cached(&self, settings: &HubSettings) -> Result<Pulled> {
        let there = settings
            .cache
            .snapshot(self.id)
            .filter(|folder| self.to.is_none() && ModelSummary::read(folder).is_ok());
        if let Some((folder, commit)) = there.zip(settings.cache.commit(self.id)) {
            return Ok(Pulled {
                folder,
                commit,
                fetched: 0,
            });
        }
        Err(Error::config(format!(
            "{} is not fetched, because HF_HUB_OFFLINE is set",
            self.id
        ))
        .hint(format!("unset it, or {}", self.by_hand())))
    }

    /// What to do without a hub.
    fn by_hand(&self) -> String {
        format!(
            "put its config.json, safetensors and tokenizer.json into {}",
            self.to.unwrap_or(self.instead).display()
        )
    }
}
