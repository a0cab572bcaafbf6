//! Single flight: those who ask for one key at one time share one computation.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::key::{BuildThrough, Digest, Key};

const SHARDS: usize = 16;

type Landing = tokio::sync::Mutex<Option<Bytes>>;
type Shard = Mutex<HashMap<Digest, Arc<Landing>, BuildThrough>>;

/// The keys being computed. Whoever holds a flight's lock computes; what it leaves inside is for
/// those who wait.
#[derive(Default)]
pub(super) struct Flights {
    shards: Arc<[Shard; SHARDS]>,
}

/// One requester's seat. The flight is forgotten when its last requester leaves.
pub(super) struct Flight {
    shards: Arc<[Shard; SHARDS]>,
    digest: Digest,
    landing: Arc<Landing>,
}

impl Flights {
    pub fn join(&self, key: &Key) -> Flight {
        let digest = Digest(*key.digest());
        let landing = Arc::clone(
            shard(&self.shards, digest)
                .lock()
                .entry(digest)
                .or_default(),
        );
        Flight {
            shards: Arc::clone(&self.shards),
            digest,
            landing,
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

fn shard(shards: &[Shard; SHARDS], digest: Digest) -> &Shard {
    &shards[usize::from(digest.0[31]) % SHARDS]
}

impl Deref for Flight {
    type Target = Landing;

    fn deref(&self) -> &Landing {
        &self.landing
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = shard(&self.shards, self.digest).lock();
        // Two holders are the map and us: nobody can join while the shard is locked.
        if Arc::strong_count(&self.landing) == 2 {
            flights.remove(&self.digest);
        }
    }
}
