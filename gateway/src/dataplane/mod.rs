//! The kernel's tables as a desired state that one task enforces.
//!
//! `kernel` alone knows aya; `memory` stands in for the kernel where there is none; `plan` computes what must change;
//! `engine` carries it out and answers; `handle` is the way to it from other threads.

pub mod backend;
pub mod clock;
mod desired;
pub mod engine;
pub mod handle;
mod plan;
pub mod shared;
pub mod protected;
pub mod store;

pub use backend::{Backend, Change, Counters, Error, Found, Image, List};
pub use engine::Engine;
pub use handle::Handle;
