//! The request path as a whole: real sockets, the real server, a recording upstream. By chapter, one module each.

#[path = "l7/abuse.rs"]
mod abuse;
#[path = "l7/arrival.rs"]
mod arrival;
#[path = "l7/auth.rs"]
mod auth;
#[path = "l7/balance.rs"]
mod balance;
#[path = "l7/bodies.rs"]
mod bodies;
#[path = "l7/client_certificates.rs"]
mod client_certificates;
#[path = "l7/coding.rs"]
mod coding;
#[path = "l7/dns.rs"]
mod dns;
#[path = "l7/downgrade.rs"]
mod downgrade;
#[path = "l7/examples.rs"]
mod examples;
#[path = "l7/eyeballs.rs"]
mod eyeballs;
#[path = "l7/farewell.rs"]
mod farewell;
#[path = "l7/forward.rs"]
mod forward;
#[path = "l7/health.rs"]
mod health;
#[path = "l7/hostile.rs"]
mod hostile;
#[path = "l7/identity.rs"]
mod identity;
#[path = "l7/interim.rs"]
mod interim;
#[path = "l7/jwt.rs"]
mod jwt;
#[path = "l7/life.rs"]
mod life;
#[path = "l7/limits.rs"]
mod limits;
#[path = "l7/multiplex.rs"]
mod multiplex;
#[path = "l7/oidc.rs"]
mod oidc;
#[path = "l7/openapi.rs"]
mod openapi;
#[path = "l7/overload.rs"]
mod overload;
#[path = "l7/peers.rs"]
mod peers;
#[path = "l7/refusals.rs"]
mod refusals;
#[path = "l7/retries.rs"]
mod retries;
#[path = "l7/routing.rs"]
mod routing;
#[path = "l7/shape.rs"]
mod shape;
#[path = "l7/shared.rs"]
mod shared;
#[path = "l7/signatures.rs"]
mod signatures;
#[path = "l7/stalled.rs"]
mod stalled;
#[path = "l7/throttle.rs"]
mod throttle;
#[path = "l7/tls.rs"]
mod tls;
#[path = "l7/upgrade.rs"]
mod upgrade;
#[path = "l7/vouched.rs"]
mod vouched;
#[path = "l7/ways.rs"]
mod ways;
#[path = "l7/websocket.rs"]
mod websocket;
