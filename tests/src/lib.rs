//! What the tests share.

pub mod packet;
pub mod table;
