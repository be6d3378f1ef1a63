//! Parsing and policy of the packet path, as plain functions that run in a unit test.
#![cfg_attr(target_arch = "bpf", no_std)]
