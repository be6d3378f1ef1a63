//! Protocols as others speak them: WebSocket and gRPC in Python, through the gateway.

use gateway::config::model::Protocol;
use gateway_tests::l7::peer::{Peer, run, talk};
use gateway_tests::l7::{Gateway, Site, Upstream};

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

#[test]
fn a_grpc_client_understands_what_the_gateway_itself_says() {
    let upstream = Upstream::text("");
    let site = "
routes:
  - match: {host: keyed.example, path: /**}
    auth: {api_key: {keys: [{name: a, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}}
    upstream: UP
  - {match: {host: dead.example, path: /**}, upstream: [{url: \"http://127.0.0.1:1\"}]}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let address = gateway.address().to_string();
    let refused = |arguments: [&str; 3]| {
        let [host, code, word] = arguments;
        run("grpc_peer.py", "refused", &[&address, host, code, word]);
    };
    refused(["keyed.example", "UNAUTHENTICATED", "credentials_missing"]);
    refused(["dead.example", "UNAVAILABLE", "upstream_unreachable"]);
    refused(["else.example", "UNIMPLEMENTED", "no_route"]);
}
