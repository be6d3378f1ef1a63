//! Parts of a configuration that most of its many routes leave as they are.

use std::ops::{Deref, DerefMut};

/// Takes the room of a pointer where nothing is said, and reads as the default then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rare<T>(Option<Box<T>>);

/// What nothing said reads as: equal to the default.
pub trait Unsaid: Default + PartialEq + 'static {
    const UNSAID: &'static Self;
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Unsaid> From<T> for Rare<T> {
    fn from(part: T) -> Self {
        // One form for each value, so that comparing forms compares values.
        Self((part != *T::UNSAID).then(|| Box::new(part)))
    }
}

impl<T: Unsaid> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::UNSAID)
    }
}

impl<T: Unsaid> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}
