//! Clients that behave oddly without meaning harm.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// A connection from one of the client's addresses.
fn connect(stage: &Stage, from: &str) -> Result<TcpStream> {
    stage.wire.client.connect(from, &format!("{GATEWAY}:8080"))
}

#[test]
fn who_leaves_in_the_middle_of_an_upload_has_gone_and_done_nothing_wrong() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    let head = "POST /open/upload HTTP/1.1\r\nHost: a\r\n";
    let sized = format!("{head}Content-Length: 100\r\n\r\nhalf");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n64\r\nhalf");
    let between_chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let in_a_size = format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n1");
    let mut left = 0;
    for upload in [sized, chunked, between_chunks, in_a_size] {
        for reset in [false, true] {
            let mut stream = connect(&stage, A)?;
            stream.write_all(upload.as_bytes())?;
            wait_until("upload at the upstream", || {
                let seen = stage.origin.seen();
                Ok(seen.iter().filter(|line| line.contains("/open/upload")).count() > left)
            })?;
            if reset {
                rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
            }
            drop(stream);
            left += 1;
            wait_until("record of a client that went away", || {
                let log = gateway.log();
                let records = log.lines().filter(|line| line.contains("path=/open/upload"));
                let gone = |line: &&str| line.contains("status=499") && line.contains("complete=false");
                Ok(records.filter(gone).count() == left)
            })
            .with_context(|| gateway.log())?;
        }
    }
    assert!(!gateway.log().contains("malformed"), "{}", gateway.log());
    let (outcome, explained) = stage.verdict(A)?;
    assert_eq!(
        (outcome.as_str(), explained["strikes"]["strikes"].as_u64()),
        ("clean", Some(0))
    );
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));

    // A body that lies is another matter.
    let mut stream = connect(&stage, A)?;
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    wait_until("strike", || {
        Ok(stage.verdict(A)?.1["strikes"]["strikes"].as_u64() == Some(1))
    })
}
