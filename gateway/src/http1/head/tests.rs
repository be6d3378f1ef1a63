use super::*;

const MOST: Limits = Limits {
    bytes: 4096,
    lines: 16,
};

fn read(text: &str) -> Result<(request::Parts, Meaning), Fault> {
    let mut search = Search::default();
    // Byte by byte first: where the header ends does not depend on the pieces.
    let mut end = Ok(None);
    for cut in 0..=text.len() {
        end = search.end(&text.as_bytes()[..cut], MOST.bytes);
        if !matches!(end, Ok(None)) {
            break;
        }
    }
    assert_eq!(
        end,
        Search::default().end(text.as_bytes(), MOST.bytes),
        "{text:?}"
    );
    request(
        &Bytes::copy_from_slice(&text.as_bytes()[..end?.ok_or(Fault::Malformed)?]),
        MOST,
    )
}

#[test]
fn a_request_s_framing_is_said_once_and_in_one_way() {
    let framing =
        |lines: &str| read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).map(|(_, m)| m.framing);
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::Length(0)));
    assert_eq!(
        framing("content-length:\t18446744073709551615 \r\n"),
        Ok(Framing::Length(u64::MAX))
    );
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    for bad in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding:chunked\r\nCONTENT-LENGTH:1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \r\n",
    ] {
        assert_eq!(framing(bad), Err(Fault::Malformed), "{bad:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(read(old).unwrap_err(), Fault::Malformed);
}

#[test]
fn lines_that_are_none_are_refused() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(read(bad).unwrap_err(), Fault::Malformed, "{bad:?}");
    }
}

#[test]
fn lines_and_bytes_are_counted() {
    let many = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(lines));
    assert!(read(&many(16)).is_ok());
    assert_eq!(read(&many(17)).unwrap_err(), Fault::TooLarge);
    let long = |bytes: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(bytes - 23));
    assert_eq!(long(4096).len(), 4096);
    assert!(read(&long(4096)).is_ok());
    assert_eq!(read(&long(4097)).unwrap_err(), Fault::TooLarge);
    let most = Limits {
        bytes: usize::MAX,
        lines: 500,
    };
    let parse = |lines| request(&Bytes::from(many(lines)), most);
    assert_eq!(parse(500).map(|(parts, _)| parts.headers.len()), Ok(500));
    assert_eq!(parse(501).unwrap_err(), Fault::TooLarge);
}

#[test]
fn who_keeps_the_connection_and_who_waits_for_leave() {
    let meaning = |first: &str, lines: &str| read(&format!("{first}\r\nHost: a\r\n{lines}\r\n")).unwrap().1;
    assert!(meaning("GET / HTTP/1.1", "").keep_alive);
    assert!(!meaning("GET / HTTP/1.1", "Connection: x, Close\r\n").keep_alive);
    assert!(!meaning("GET / HTTP/1.0", "").keep_alive);
    assert!(meaning("GET / HTTP/1.0", "Connection: keep-alive\r\n").keep_alive);
    assert!(meaning("PUT / HTTP/1.1", "Expect: 100-Continue\r\n").expects_continue);
    assert!(!meaning("PUT / HTTP/1.0", "Expect: 100-continue\r\n").expects_continue);
}

#[test]
fn a_response_ends_where_its_request_and_status_say() {
    let read = |text: &str, to_head| {
        response(&Bytes::copy_from_slice(text.as_bytes()), MOST, to_head)
            .map(|(_, m)| (m.framing, m.keep_alive))
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    assert_eq!(
        read(&format!("{ok}Content-Length: 3\r\n\r\n"), false),
        Ok((Framing::Length(3), true))
    );
    assert_eq!(
        read(&format!("{ok}Content-Length: 3\r\n\r\n"), true),
        Ok((Framing::None, true))
    );
    assert_eq!(
        read(&format!("{ok}\r\n"), false),
        Ok((Framing::UntilClose, false))
    );
    assert_eq!(
        read("HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", false),
        Ok((Framing::None, true))
    );
    assert_eq!(
        read("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false),
        Ok((Framing::Length(3), false))
    );
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert_eq!(read(bad, false), Err(Fault::Malformed), "{bad:?}");
    }
}
