//! Callers who sign their requests (RFC 9421): what a signer in another language makes, and what is changed behind its back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::http::reject::Reject;
use gateway_tests::l7::peer::{run, talk};
use gateway_tests::l7::{Client, Gateway, Site, Upstream};
use serde_json::{Value, json};

/// A directory with a secret and three pairs of keys, and the list of them.
fn keys() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let mut list = format!(
        "{{id: shared, secret: {{file: {}}}, scopes: [read]}}",
        at("secret")
    );
    for kind in ["ed25519", "p256", "rsa"] {
        run(
            "signer.py",
            "key",
            &[kind, &at(kind), &at(&format!("{kind}.pub"))],
        );
        list += &format!(
            ", {{id: {kind}, name: holder-{kind}, pem: {}}}",
            at(&format!("{kind}.pub"))
        );
    }
    (dir, list)
}

fn site(keys: &str, more: &str, upstream: &Upstream) -> Site {
    let auth = format!("{{signature: {{keys: [{keys}]{more}}}, pass: {{X-User: name}}}}");
    let text = format!("routes: [{{name: r, match: {{path: /**}}, auth: {auth}, upstream: UP}}]");
    Site::written(&text, upstream)
}

/// What the default asks for, and a body.
const ALL: [&str; 5] = ["@method", "@authority", "@path", "@query", "content-digest"];

#[test]
fn what_another_s_signer_makes_is_taken_and_what_is_changed_behind_its_back_is_not() {
    let (dir, list) = keys();
    let upstream = Upstream::mirror("");
    let gateway = Gateway::start(&site(&list, "", &upstream));
    let address = gateway.address().to_string();
    let secret = dir.path().join("secret").display().to_string();
    let ask = |change: Value| {
        let mut job = json!({"id": "shared", "secret": secret, "method": "POST", "target": "/a/b?c=d%20e&f",
            "body": "{\"n\": 1}", "cover": ALL, "expect": [200]});
        for (name, value) in change.as_object().expect("an object") {
            job[name] = value.clone();
        }
        talk("signer.py", &[&address, &job.to_string()]);
    };
    ask(json!({}));
    let seen = upstream.last();
    assert_eq!(seen.header("x-user"), ["shared"]);
    assert!(
        !seen.header("signature").is_empty(),
        "kept, as the upstream may look as well"
    );
    for kind in ["ed25519", "p256", "rsa"] {
        let key = dir.path().join(kind).display().to_string();
        let mut job = json!({"id": kind, "key": key, "cover": ["@method", "@target-uri", "x-own"],
            "headers": [["X-Own", " a "], ["x-own", "b"]], "target": "/?q", "expect": [200]});
        talk("signer.py", &[&address, &job.to_string()]);
        assert_eq!(upstream.last().header("x-user"), [format!("holder-{kind}")]);
        job["then_headers"] = json!([["X-Own", "a"]]);
        job["expect"] = json!([401]);
        talk("signer.py", &[&address, &job.to_string()]);
    }
    let before = upstream.requests().len();
    for change in [
        json!({"then_method": "PUT"}),
        json!({"then_target": "/a/c?c=d%20e&f"}),
        json!({"then_target": "/a/b?c=d%20e&f&g"}),
        json!({"then_target": "/a/b"}),
        json!({"then_body": "{\"n\": 2}"}),
        json!({"then_body": ""}),
        json!({"then_headers": [["Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"]]}),
        json!({"cover": ["@method", "@authority", "@path", "@query"]}),
        json!({"cover": ["@method", "@authority", "@path", "content-digest"]}),
        json!({"cover": ["@method", "@path", "@query", "content-digest"]}),
        json!({"cover": ["@authority", "@path", "@query", "content-digest"]}),
        json!({"id": "somebody"}),
        json!({"id": "ed25519"}),
        json!({"age": -200}),
        json!({"age": 200}),
        json!({"parameters": ";expires=1618884473"}),
        json!({"parameters": ";alg=\"ed25519\""}),
    ] {
        let mut change = change;
        change["expect"] = json!([401]);
        ask(change);
    }
    assert_eq!(upstream.requests().len(), before, "none of them came through");
    assert!(
        gateway
            .rejects()
            .iter()
            .all(|reject| *reject == Reject::CredentialsInvalid)
    );
    // A query that is added to what had none is covered by nothing.
    ask(
        json!({"target": "/a", "then_target": "/a?admin=1", "cover": ["@method", "@authority", "@path", "content-digest"], "expect": [401]}),
    );
    ask(json!({"target": "/a", "cover": ["@method", "@authority", "@path", "content-digest"]}));
    // Another spelling of the same path is the same path: what is signed is the canonical one.
    ask(
        json!({"target": "/a/b", "then_target": "/x/../a/%62", "cover": ["@method", "@authority", "@path", "content-digest"]}),
    );
    assert_eq!(upstream.last().target, "/a/b");
    let answer = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (401, Some("credentials_missing"))
    );
    assert_eq!(
        answer.header("accept-signature"),
        Some("sig=(\"@method\" \"@authority\" \"@path\" \"@query\");created;keyid")
    );
}

#[test]
fn a_nonce_is_good_once_for_all_workers_and_after_a_reload() {
    let (dir, list) = keys();
    let upstream = Upstream::text("in");
    let mut site_of = site(&list, ", nonce: required, tag: shop", &upstream);
    site_of.config.workers = 2.try_into().unwrap();
    let gateway = Gateway::start(&site_of);
    let address = gateway.address().to_string();
    let secret = dir.path().join("secret").display().to_string();
    let ask = |parameters: &str, expect: &[u16]| {
        let job = json!({"id": "shared", "secret": secret, "cover": ["@method", "@target-uri"], "parameters": parameters,
            "expect": expect});
        talk("signer.py", &[&address, &job.to_string()]);
    };
    ask(";nonce=\"one\";tag=\"shop\"", &[200, 401, 401, 401]);
    ask(";nonce=\"two\";tag=\"shop\"", &[200]);
    ask(";tag=\"shop\"", &[401]);
    ask(";nonce=\"three\"", &[401]);
    ask(";nonce=\"three\";tag=\"other\"", &[401]);
    gateway.reload(&site(
        &list,
        ", nonce: required, tag: shop, leeway: 31s",
        &upstream,
    ));
    ask(";nonce=\"two\";tag=\"shop\"", &[401]);
    ask(";nonce=\"three\";tag=\"shop\"", &[200, 401]);
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn a_nonce_is_used_up_by_a_request_that_is_let_through_alone() {
    let (dir, list) = keys();
    let upstream = Upstream::text("in");
    let consents = Arc::new(AtomicBool::new(false));
    let judge = Upstream::start({
        let consents = Arc::clone(&consents);
        move |_, wire| {
            let status = if consents.load(Ordering::SeqCst) { 200 } else { 403 };
            wire.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"));
            true
        }
    });
    let signed = format!("{{signature: {{keys: [{list}], nonce: required}}}}");
    let text = format!(
        "routes: [{{match: {{path: /}}, auth: {signed}, upstream: UP}}, \
         {{match: {{path: /all}}, auth: {{all: [{signed}, {{forward: {{url: \"http://{}/\"}}}}]}}, upstream: UP}}, \
         {{match: {{path: /own}}, auth: {signed}, respond: {{status: 204}}}}]",
        judge.address()
    );
    let gateway = Gateway::start(&Site::written(&text, &upstream));
    let address = gateway.address().to_string();
    let secret = dir.path().join("secret").display().to_string();
    let ask = |nonce: &str, change: Value| {
        let mut job = json!({"id": "shared", "secret": secret, "method": "POST", "body": "{}",
            "cover": ["@method", "@target-uri", "content-digest"], "parameters": format!(";nonce=\"{nonce}\"")});
        for (name, value) in change.as_object().expect("an object") {
            job[name] = value.clone();
        }
        talk("signer.py", &[&address, &job.to_string()]);
    };
    // A body that is not the one that was signed, and one that is.
    ask("body", json!({"then_body": "[]", "expect": [401, 401]}));
    ask("body", json!({"expect": [200, 401]}));
    // Of those that come at once each has passed the look at its header, and one gets through.
    ask(
        "crowd",
        json!({"at_once": true, "expect": [200, 401, 401, 401, 401, 401]}),
    );
    // Another way that refuses.
    ask("all", json!({"target": "/all", "expect": [403]}));
    consents.store(true, Ordering::SeqCst);
    ask("all", json!({"target": "/all", "expect": [200, 401]}));
    // And where the gateway answers itself.
    ask("own", json!({"target": "/own", "expect": [204, 401]}));
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn who_only_observes_tells_of_a_nonce_that_is_used_again() {
    let (dir, list) = keys();
    let upstream = Upstream::text("in");
    let text = format!(
        "routes: [{{name: r, match: {{path: /**}}, auth: {{signature: {{keys: [{list}]}}, observe: true}}, upstream: UP}}]"
    );
    let gateway = Gateway::start(&Site::written(&text, &upstream));
    let secret = dir.path().join("secret").display().to_string();
    let job = json!({"id": "shared", "secret": secret, "cover": ["@method", "@target-uri"], "parameters": ";nonce=\"seen\"",
        "expect": [200, 200, 200]});
    talk("signer.py", &[&gateway.address().to_string(), &job.to_string()]);
    let observed = gateway.metrics.encode();
    let line = "gateway_observed_rejects_total{route=\"r\",code=\"credentials_invalid\"} 2";
    assert!(observed.contains(line), "{observed}");
}

#[test]
fn with_others_who_must_be_asked_a_nonce_is_still_taken_once() {
    let (dir, list) = keys();
    let (upstream, judge) = (Upstream::text("in"), Upstream::text("yes"));
    let text = format!(
        "routes: [{{match: {{path: /**}}, auth: {{all: [{{signature: {{keys: [{list}], nonce: required, keep: false}}}}, \
         {{forward: {{url: \"http://{}/\"}}}}]}}, upstream: UP}}]",
        judge.address()
    );
    let gateway = Gateway::start(&Site::written(&text, &upstream));
    let secret = dir.path().join("secret").display().to_string();
    let job = json!({"id": "shared", "secret": secret, "cover": ["@method", "@target-uri"], "parameters": ";nonce=\"both\"",
        "expect": [200, 401]});
    talk("signer.py", &[&gateway.address().to_string(), &job.to_string()]);
    assert_eq!(upstream.requests().len(), 1);
    for seen in [upstream.last(), judge.last()] {
        assert!(seen.header("signature").is_empty() && seen.header("signature-input").is_empty());
    }
}

#[test]
fn a_signed_body_is_held_up_to_its_bound_and_a_coded_one_as_it_was_sent() {
    let (dir, list) = keys();
    let upstream = Upstream::text("in");
    let gateway = Gateway::start(&site(&list, ", max_bytes: 1KiB", &upstream));
    let address = gateway.address().to_string();
    let secret = dir.path().join("secret").display().to_string();
    let ask = |length: usize, expect: u16| {
        let job = json!({"id": "shared", "secret": secret, "method": "PUT", "body": "x".repeat(length), "cover": ALL,
            "expect": [expect]});
        talk("signer.py", &[&address, &job.to_string()]);
    };
    ask(1024, 200);
    ask(1025, 413);
    ask(0, 200);
    assert_eq!(upstream.requests().len(), 2);
    // On a route that has it decoded, the digest is that of the bytes that came.
    let decoded = site(&list, "", &upstream).with(|route| route.decompress = Some(1 << 20));
    let gateway = Gateway::start(&decoded);
    let job = json!({"id": "shared", "secret": secret, "method": "PUT", "body": "no gzip", "cover": ALL,
        "headers": [["Content-Encoding", "gzip"]], "expect": [400]});
    talk("signer.py", &[&gateway.address().to_string(), &job.to_string()]);
    assert_eq!(gateway.rejects(), [Reject::BadBody], "the signature was good");
}
