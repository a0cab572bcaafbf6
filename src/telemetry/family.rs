//! Handles by the value of one label, for hot paths.

use std::fmt;
use std::sync::OnceLock;

const SLOTS: usize = 16;

/// Handles by the value of one label whose values are few words of ours (a reason, a record kind).
/// Looking one up takes no lock and allocates nothing; past 16 values the rest share the word
/// `other`, so that a metric's size stays bounded.
pub struct Family<T> {
    slots: [OnceLock<(&'static str, T)>; SLOTS],
    make: Box<dyn Fn(&'static str) -> T + Send + Sync>,
}

impl<T> Family<T> {
    /// A family whose handles `make` builds from the label's value on first use.
    pub fn new(make: impl Fn(&'static str) -> T + Send + Sync + 'static) -> Self {
        Self {
            slots: [const { OnceLock::new() }; SLOTS],
            make: Box::new(make),
        }
    }

    /// The handle for `value`.
    pub fn with(&self, value: &'static str) -> &T {
        let last = SLOTS - 1;
        for slot in &self.slots[..last] {
            let (name, handle) = slot.get_or_init(|| (value, (self.make)(value)));
            if same(name, value) {
                return handle;
            }
        }
        &self.slots[last]
            .get_or_init(|| ("other", (self.make)("other")))
            .1
    }

    /// The handles made so far with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.slots
            .iter()
            .filter_map(|slot| slot.get().map(|(name, handle)| (*name, handle)))
    }
}

fn same(a: &'static str, b: &'static str) -> bool {
    (std::ptr::eq(a.as_ptr(), b.as_ptr()) && a.len() == b.len()) || a == b
}

impl<T> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_finds_equal_words_and_stays_bounded() {
        let family = Family::new(|word| word.to_owned());
        assert_eq!(family.with("late"), "late");
        let same_word: &'static str = Box::leak("late".to_owned().into_boxed_str());
        assert!(std::ptr::eq(family.with("late"), family.with(same_word)));
        for n in 0..100 {
            family.with(Box::leak(format!("word{n}").into_boxed_str()));
        }
        assert_eq!(family.iter().count(), SLOTS);
        assert_eq!(family.with("unheard of"), "other");
    }
}
