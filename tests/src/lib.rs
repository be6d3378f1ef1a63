//! What the tests share.

pub mod l7;
