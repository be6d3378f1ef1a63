//! Parsing and policy of the packet path, as plain functions that run in a unit test.
//!
//! `packet` turns bytes into facts, `policy` turns facts into a verdict, `cookie` a SYN into its answer. None knows a map, a helper or a
//! processor: the kernel shell in `main.rs` supplies them, and so do a unit test and `gateway explain`. The same
//! source is compiled for the host and for the kernel, where the verifier must be able to follow it: hence checked
//! reads of constant size, loops with a constant bound, and inlining everywhere.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod cookie;
pub mod packet;
pub mod policy;
