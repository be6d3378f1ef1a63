//! A bounded memory for what is true until a time. Owns what is forgotten when it is full; knows nothing of what it holds.
//!
//! Two halves: the younger takes what is new, and when it is full it becomes the older, whose content goes. What is asked
//! for stays. So a look-up costs one or two of a hash map, and forgetting costs nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Values under names of 32 even bytes.
#[derive(Debug)]
pub struct Cache<V> {
    young: Half<V>,
    old: Half<V>,
    /// Entries of one half.
    most: usize,
}

type Half<V> = HashMap<[u8; 32], (u64, V), BuildHasherDefault<Front>>;

/// The names are hashes under a secret already: their first bytes will do.
#[derive(Debug, Default)]
struct Front(u64);

impl Hasher for Front {
    fn write(&mut self, bytes: &[u8]) {
        // The length of the array comes first, as eight bytes; the name last, and so it counts.
        if let Some(front) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*front);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<V> Cache<V> {
    /// For at most so many entries.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            young: Half::default(),
            old: Half::default(),
            most: most.div_ceil(2).max(1),
        }
    }

    /// What stands under a name, if its time has not come.
    pub fn get(&mut self, name: &[u8; 32], now: u64) -> Option<&V> {
        if !self.young.contains_key(name) {
            let (until, value) = self.old.remove(name)?;
            if until <= now {
                return None;
            }
            self.put(*name, until, value);
        }
        let (until, value) = self.young.get(name)?;
        (*until > now).then_some(value)
    }

    /// Puts a value under a name, good until a time.
    pub fn put(&mut self, name: [u8; 32], until: u64, value: V) {
        if self.young.len() >= self.most && !self.young.contains_key(&name) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> [u8; 32] {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&n.to_le_bytes());
        name
    }

    #[test]
    fn it_stays_bounded_and_what_is_asked_for_stays() {
        let mut cache = Cache::new(100);
        cache.put(name(0), 10, 0);
        for n in 1..10_000 {
            cache.put(name(n), 10, n);
            assert!(cache.young.len() + cache.old.len() <= 100);
            assert_eq!(cache.get(&name(0), 9), Some(&0), "{n}");
        }
        assert_eq!(cache.get(&name(1), 9), None);
        assert_eq!(cache.get(&name(9_999), 9), Some(&9_999));
        assert_eq!(cache.get(&name(9_999), 10), None, "its time has come");
    }
}
