//! The ids under which a registry keeps this build's schemas.

use crate::packet::{Payload, PayloadKind};

/// The ids that a registry gave to the schemas, one for every kind of record and one for the dead
/// letters of every kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaIds {
    records: [u32; PayloadKind::ALL.len()],
    dead_letters: [u32; PayloadKind::ALL.len()],
}

impl SchemaIds {
    /// The same id everywhere, for registries of one schema and for tests.
    pub const fn all(id: u32) -> Self {
        Self {
            records: [id; PayloadKind::ALL.len()],
            dead_letters: [id; PayloadKind::ALL.len()],
        }
    }

    /// Sets the id of the schema under which records of `kind` travel, or, where `dead`, the dead
    /// letters about them.
    pub fn set(&mut self, kind: PayloadKind, dead: bool, id: u32) {
        let ids = if dead {
            &mut self.dead_letters
        } else {
            &mut self.records
        };
        ids[kind as usize] = id;
    }

    pub(super) fn of(&self, payload: &Payload) -> u32 {
        match payload {
            Payload::DeadLetter(letter) => self.dead_letters[letter.record as usize],
            payload => self.records[payload.kind() as usize],
        }
    }
}
