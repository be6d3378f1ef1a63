//! The request path as a whole: real sockets, the real server, a recording upstream. By chapter, one module each.

#[path = "l7/arrival.rs"]
mod arrival;
#[path = "l7/client_certificates.rs"]
mod client_certificates;
#[path = "l7/forward.rs"]
mod forward;
#[path = "l7/hostile.rs"]
mod hostile;
#[path = "l7/life.rs"]
mod life;
#[path = "l7/limits.rs"]
mod limits;
#[path = "l7/tls.rs"]
mod tls;
#[path = "l7/upgrade.rs"]
mod upgrade;
