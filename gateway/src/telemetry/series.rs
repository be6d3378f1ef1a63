//! How long the series of a name live: until the last who counts under it is gone. Owns no counter.
//!
//! A reload removes routes and upstreams, and what they had under way goes on counting. Whatever counts for a name holds a
//! [`Held`] of it; when there is none left, the series go, so that many reloads do not leave many names behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Families whose series have one name in their labels.
pub(super) trait Families {
    /// Removes the series of a name.
    fn forget(&self, name: &str);
}

/// Families, and the names that count in them.
pub(super) struct Series<F: Families> {
    families: F,
    names: Mutex<HashMap<Arc<str>, Weak<Held<F>>>>,
}

/// A name in use.
pub(super) struct Held<F: Families> {
    series: Arc<Series<F>>,
    name: Arc<str>,
}

impl<F: Families> Series<F> {
    pub(super) fn new(families: F) -> Arc<Self> {
        let names = Mutex::default();
        Arc::new(Self { families, names })
    }

    pub(super) fn families(&self) -> &F {
        &self.families
    }

    /// Keeps the series of a name, from before the first is made.
    pub(super) fn hold(self: &Arc<Self>, name: &str) -> Arc<Held<F>> {
        let mut names = self.names();
        if let Some(held) = names.get(name).and_then(Weak::upgrade) {
            return held;
        }
        let name = Arc::<str>::from(name);
        let held = Arc::new(Held {
            series: Arc::clone(self),
            name: Arc::clone(&name),
        });
        names.insert(name, Arc::downgrade(&held));
        held
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Held<F>>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Families> Held<F> {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn families(&self) -> &F {
        &self.series.families
    }
}

impl<F: Families> Drop for Held<F> {
    fn drop(&mut self) {
        let mut names = self.series.names();
        // Somebody else may have begun to use the name since the last but this was gone.
        let unused = |held: &Weak<Self>| held.strong_count() == 0;
        if names.get(&self.name).is_some_and(unused) {
            names.remove(&self.name);
            self.series.families.forget(&self.name);
        }
    }
}

impl<F: Families> fmt::Debug for Series<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Series")
    }
}

impl<F: Families> fmt::Debug for Held<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.name).finish()
    }
}
