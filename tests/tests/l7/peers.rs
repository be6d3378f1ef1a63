//! Protocols as others speak them: WebSocket and gRPC in Python, through the gateway.

use gateway::config::model::Protocol;
use gateway_tests::l7::peer::{Peer, talk};
use gateway_tests::l7::{Gateway, Site};

#[test]
fn websocket_goes_through_whole() {
    let peer = Peer::serve("websocket.py");
    let gateway = Gateway::start(&Site::new().route("*", "/**", &[(peer.address(), 1)]));
    talk("websocket.py", &[&format!("ws://{}/chat", gateway.address())]);
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn grpc_goes_through_with_trailers_both_ways() {
    let peer = Peer::serve("grpc_peer.py");
    let site = Site::new()
        .route("grpc.example", "/test.Echo/**", &[(peer.address(), 1)])
        .upstream(|upstream| upstream.protocol = Protocol::Http2)
        .with(|route| route.body_bytes = Some(u64::MAX));
    let gateway = Gateway::start(&site);
    talk("grpc_peer.py", &[&gateway.address().to_string(), "grpc.example"]);
}
