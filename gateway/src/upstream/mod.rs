//! Named services and the connections to them.
