//! What the tests share.

pub mod flood;
pub mod gateway;
pub mod l7;
pub mod net;
pub mod origin;
pub mod packet;
pub mod table;
