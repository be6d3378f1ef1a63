//! The contract between the kernel program and user space.
//!
//! Owns every name, number and byte layout that both sides must agree on: addresses as table keys, outcomes and
//! their numbers, table names and values, the settings word, the limiter's arithmetic. Must not know how packets
//! are read, how maps are reached or what a request is. `no_std`, unsigned integers and byte arrays only, so that
//! the same source compiles for the kernel and for the host; a test compares these layouts with the built object.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod addr;
pub mod addresses;
pub mod branchless;
pub mod entry;
pub mod limiter;
pub mod networks;
pub mod outcome;
pub mod tables;

/// Version of everything in this crate that a running kernel program depends on.
///
/// Part of the pin path: a gateway never touches tables whose layout it does not know. Raise it with any change to
/// a key, a value, a table's type or the meaning of a field.
pub const ABI_VERSION: u32 = 3;
