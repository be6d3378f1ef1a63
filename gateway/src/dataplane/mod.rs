//! The kernel's tables as a desired state that one task enforces.
//!
//! `kernel` alone knows aya; `memory` stands in for the kernel where there is none; `plan` computes what must change;
//! `engine` carries it out and answers; `handle` is the way to it from other threads.

pub mod backend;
pub mod clock;
pub mod cookies;
mod desired;
pub mod engine;
pub mod events;
mod found;
pub mod handle;
pub mod kernel;
mod limits;
pub mod lines;
pub mod lock;
pub mod memory;
mod place;
mod plan;
pub mod privilege;
pub mod protected;
pub mod shared;
pub mod store;

pub use backend::{
    Attachment, Backend, Change, Counters, Error, Found, Image, List, Mended, Room, Unfiltered,
};
pub use engine::Engine;
pub use found::FoundAt;
pub use handle::Handle;
pub use kernel::Kernel;
pub use memory::Memory;
