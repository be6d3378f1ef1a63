//! Bodies that are held whole: what they may take in all and for one client, until they are sent or thrown away.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_tests::gateway::{Gateway, wait_until};
use gateway_tests::l7::http2::{END_HEADERS, END_STREAM, Flood, GET, HEADERS, SETTINGS, frame};
use gateway_tests::l7::{Client, Response, Upstream};

use super::Stage;

const MIB: usize = 1 << 20;
/// Nearly all of one client's share.
const MUCH: usize = 60 * MIB;
/// What has no room beside it.
const MORE: usize = 10 * MIB;

/// So many bytes, from 8 on.
fn json(length: usize) -> Vec<u8> {
    let mut body = br#"{"b":""#.to_vec();
    body.resize(length - 2, b'x');
    body.extend(br#""}"#);
    body
}

/// A request with a body for one of the clients of a trusted proxy, but for its last byte.
fn unfinished(stage: &Stage, path: &str, client: u8, length: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(stage.address)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{client}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(&json(length)[..length - 1])?;
    Ok(stream)
}

/// The same to its end, with its answer. It may be refused before all of it was sent.
fn post(stage: &Stage, client: u8, length: usize) -> Response {
    post_to("/ok", stage, client, length)
}

fn post_to(path: &str, stage: &Stage, client: u8, length: usize) -> Response {
    let mut connection = Client::connect(stage.address);
    let header = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{client}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    connection.send(header).send(json(length));
    connection.response()
}

fn is_refused(response: &Response) -> bool {
    (response.status, response.code().as_deref()) == (503, Some("overloaded"))
}

/// Describes what is sent here.
fn describe(stage: &Stage) -> Result<()> {
    let content = "content: {application/json: {schema: {type: object}}}";
    let text = format!(
        "openapi: 3.0.0\ninfo: {{title: a, version: '1'}}\npaths:\n  /: {{get: {{responses: {{'200': {{description: a, {content}}}}}}}}}\n  \
         /watched: {{post: {{requestBody: {{{content}}}, responses: {{'200': {{description: a}}}}}}}}\n"
    );
    Ok(std::fs::write(stage.file("api.yaml"), text)?)
}

/// `/ok` is answered; `/wait` goes to somebody who never takes anything; `/watched` is only looked at.
fn held(upstream: &Upstream, hole: &TcpListener) -> Result<(Stage, Gateway)> {
    let stage = Stage::new()?;
    let mut rest = "trusted_proxies: [127.0.0.1]\nlimits: {body_progress: 60s}\nroutes:\n".to_owned();
    for (path, to) in [("/ok", upstream.address()), ("/wait", hole.local_addr()?)] {
        writeln!(
            rest,
            "  - {{match: {{path: {path}}}, request: {{body: {{json: [{{set: /a, value: 1}}], max_bytes: 64MiB}}}}, limits: \
             {{body_bytes: 64MiB}}, upstream: [{{url: 'http://{to}'}}]}}"
        )?;
    }
    writeln!(
        rest,
        "  - {{match: {{path: /watched}}, validate: {{openapi: {{file: api.yaml, observe: true, max_bytes: 64MiB}}}}, limits: \
         {{body_bytes: 64MiB}}, upstream: [{{url: 'http://{}'}}]}}",
        upstream.address()
    )?;
    describe(&stage)?;
    stage.write("", &rest)?;
    let gateway = stage.start()?;
    Ok((stage, gateway))
}

fn swallowing() -> Upstream {
    Upstream::start(|request, wire| {
        wire.body(request);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    })
}

#[test]
fn bodies_have_a_bound_in_all_and_one_for_each_client() -> Result<()> {
    let (upstream, hole) = (swallowing(), TcpListener::bind("127.0.0.1:0")?);
    let (stage, gateway) = held(&upstream, &hole)?;
    let mut crowd = vec![unfinished(&stage, "/ok", 1, MUCH)?];
    wait_until("one client has its share", || {
        Ok(is_refused(&post(&stage, 1, MORE)))
    })?;
    ensure!(post(&stage, 2, MUCH).status == 200, "it is not another's");
    let watched = post_to("/watched", &stage, 1, MORE);
    ensure!(watched.status == 200, "who observes refuses nothing: {watched:?}");
    for client in 2..=4 {
        crowd.push(unfinished(&stage, "/ok", client, MUCH)?);
    }
    wait_until("there is no more for anybody", || {
        Ok(is_refused(&post(&stage, 5, 2 * MORE)))
    })?;
    ensure!(post(&stage, 5, 8).status == 200, "there is a little left");
    let resident = gateway.resident()? >> 20;
    ensure!(resident < 500, "{resident} MiB are resident");
    drop(crowd);
    wait_until("all is given back", || {
        Ok((1..=5).all(|client| post(&stage, client, MUCH).status == 200))
    })
}

#[test]
fn a_body_that_was_made_counts_until_the_upstream_has_it() -> Result<()> {
    let (upstream, hole) = (swallowing(), TcpListener::bind("127.0.0.1:0")?);
    let (stage, _gateway) = held(&upstream, &hole)?;
    let mut waiting = unfinished(&stage, "/wait", 1, MUCH)?;
    waiting.write_all(b"}")?;
    let (taken, _) = hole.accept()?;
    for _ in 0..3 {
        ensure!(is_refused(&post(&stage, 1, MORE)), "it is still there");
    }
    ensure!(post(&stage, 2, MUCH).status == 200);
    // One that only ends its side still waits for an answer.
    rustix::net::sockopt::set_socket_linger(&waiting, Some(Duration::ZERO))?;
    drop(waiting);
    wait_until("it went with its client", || {
        Ok(post(&stage, 1, MUCH).status == 200)
    })?;
    drop(taken);
    let mut again = unfinished(&stage, "/wait", 1, MUCH)?;
    again.write_all(b"}")?;
    let (taken, _) = hole.accept()?;
    ensure!(is_refused(&post(&stage, 1, MORE)));
    drop(taken);
    wait_until("it went with its upstream", || {
        Ok(post(&stage, 1, MUCH).status == 200)
    })
}

/// One client asks for many answers and takes none.
fn unread(what: &str) -> Result<()> {
    let upstream = Upstream::start(|_, wire| {
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {MORE}\r\n\r\n"
        ));
        wire.send(json(MORE));
        true
    });
    let stage = Stage::new()?;
    describe(&stage)?;
    let rest = format!(
        "trusted_proxies: [127.0.0.1]\nlimits: {{body_progress: 60s}}\nroutes:\n  - match: {{path: /**}}\n    {what}\n    \
         upstream: [{{url: 'http://{}'}}]\n",
        upstream.address()
    );
    stage.write("", &rest)?;
    let gateway = stage.start()?;
    let before = gateway.resident()?;
    let get = |client: u8| {
        let mut connection = Client::connect(stage.address);
        connection.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{client}\r\nConnection: close\r\n\r\n"
        ));
        connection.response()
    };
    ensure!(get(1).status == 200);
    let mut asking = Flood::open(stage.address);
    // INITIAL_WINDOW_SIZE: 0.
    asking.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    // The client that a proxy names, as a literal without a name in the table.
    let named = b"\x00\x0fx-forwarded-for\x09192.0.2.1";
    for stream in 0..20 {
        let header = [GET, &named[..]].concat();
        asking.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * stream, &header));
    }
    wait_until("answers are refused", || {
        Ok(upstream.requests().len() > 20 && is_refused(&get(1)))
    })?;
    ensure!(get(2).status == 200, "others are served");
    let held = gateway.resident()?.saturating_sub(before) >> 20;
    // 200 MiB if each is held.
    ensure!(held < 130, "{held} MiB");
    asking.end();
    wait_until("all is given back", || Ok(get(1).status == 200))
}

#[test]
fn edited_answers_that_nobody_takes_count_for_their_client() -> Result<()> {
    unread("response: {body: {json: [{set: /a, value: 1}], max_bytes: 64MiB}}")
}

#[test]
fn validated_answers_that_nobody_takes_count_for_their_client() -> Result<()> {
    unread("validate: {openapi: {file: api.yaml, response: enforce, max_bytes: 64MiB}}")
}
