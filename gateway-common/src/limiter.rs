//! The arithmetic of the per-source limiter. Owns how a rate is kept in a fixed table; knows no clock and no map.

/// Sources that share one bucket before one of them must make room.
pub const WAYS: usize = 8;

/// One cache line of limiter state: each word is a source's fingerprint and its theoretical arrival time.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [u64; WAYS]);

/// Buckets in the table. A power of two, so that a hash is masked into an index.
pub const BUCKETS: u32 = 1 << 16;
