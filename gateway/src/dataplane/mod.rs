//! The kernel's tables as a desired state that one task enforces.
//!
//! `kernel` alone knows aya; `memory` stands in for the kernel where there is none; `plan` computes what must change.

pub mod backend;
mod found;
pub mod kernel;
pub mod memory;
mod place;

pub use backend::{Backend, Change, Counters, Error, Found, Image, List};
pub use found::FoundAt;
pub use kernel::Kernel;
pub use memory::Memory;
