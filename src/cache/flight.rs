//! Single flight: those who ask for one key at one time share one computation.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::key::{BuildIdentityHasher, Digest, Key};

const SHARDS: usize = 16;

type SharedResult = tokio::sync::Mutex<Option<Bytes>>;
type Shard = Mutex<HashMap<Digest, Arc<SharedResult>, BuildIdentityHasher>>;

/// The keys being computed. Whoever holds a flight's lock computes; what it leaves inside is for
/// those who wait.
#[derive(Default)]
pub(super) struct Flights {
    shards: Arc<[Shard; SHARDS]>,
}

/// One requester's part in a flight. The flight is forgotten when its last requester leaves.
pub(super) struct Flight {
    shards: Arc<[Shard; SHARDS]>,
    digest: Digest,
    result: Arc<SharedResult>,
}

impl Flights {
    pub fn join(&self, key: &Key) -> Flight {
        let digest = Digest(*key.digest());
        let result = Arc::clone(
            shard(&self.shards, digest)
                .lock()
                .entry(digest)
                .or_default(),
        );
        Flight {
            shards: Arc::clone(&self.shards),
            digest,
            result,
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
    type Target = SharedResult;

    fn deref(&self) -> &SharedResult {
        &self.result
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = shard(&self.shards, self.digest).lock();
        debug_assert!(
            flights
                .get(&self.digest)
                .is_some_and(|result| Arc::ptr_eq(result, &self.result)),
            "a flight is known until its last requester leaves"
        );
        // Two holders are the map and us: nobody can join while the shard is locked.
        if Arc::strong_count(&self.result) == 2 {
            flights.remove(&self.digest);
        }
    }
}
