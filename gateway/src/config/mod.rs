//! What an operator writes, in three forms: raw text, checked model, and (in `runtime`) what serves traffic.

pub mod model;

pub use model::Config;
