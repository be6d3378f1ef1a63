//! Certificates by name, and HTTP/2.

use std::path::Path;

use gateway::config::model::{Certificate, Tls};
use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

fn certificate(dir: &Path, name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let stem = name.replace('*', "any");
    let (cert, key) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Certificate { cert, key }
}

fn curl(gateway: &Gateway, host: &str, ca: &Path, extra: &[&str]) -> (String, String) {
    let port = gateway.address().port();
    let output = std::process::Command::new("curl")
        .args([
            "-sS",
            "-m",
            "10",
            "--resolve",
            &format!("{host}:{port}:127.0.0.1"),
            "--cacert",
        ])
        .arg(ca)
        .args(extra)
        .arg(format!("https://{host}:{port}/x"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_certificate_follows_the_name_and_both_protocols_are_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = ["default.test", "a.test", "*.wild.test"].map(|name| certificate(dir.path(), name));
    let upstream = Upstream::text("hello");
    let mut site = Site::to(&upstream);
    site.config.listen[0].tls = Some(Tls::with(certificates.to_vec()));
    let gateway = Gateway::start(&site);
    for (host, ca) in [("a.test", 1), ("b.wild.test", 2), ("default.test", 0)] {
        for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let (out, error) = curl(
                &gateway,
                host,
                &certificates[ca].cert,
                &[protocol, "-w", " %{http_version}"],
            );
            assert_eq!(out, format!("hello {version}"), "{host} {error}");
        }
    }
    assert_eq!(upstream.last().header("x-forwarded-proto"), ["https"]);
    let (out, _) = curl(&gateway, "other.test", &certificates[1].cert, &[]);
    assert_eq!(
        out, "",
        "an unknown name gets the default certificate, which is not valid for it"
    );
    let mut garbage = Client::connect(gateway.address());
    garbage.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").rest();
    assert!(gateway.told(Reject::TlsHandshake));
}

/// An HTTP/2 client that can say what libraries for requests would not.
async fn h2(gateway: &Gateway, requests: Vec<http::Request<&'static str>>) -> Vec<Result<u16, h2::Error>> {
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answers = vec![];
    for request in requests {
        let (head, body) = request.into_parts();
        let answer = async {
            std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
            let (response, mut send) =
                client.send_request(http::Request::from_parts(head, ()), body.is_empty())?;
            if !body.is_empty() {
                send.send_data(body.into(), true)?;
            }
            Ok(response.await?.status().as_u16())
        };
        answers.push(answer.await);
    }
    answers
}

#[test]
fn http2_requests_keep_the_rules_of_http1() {
    let upstream = Upstream::text("ok");
    let site = Site::to(&upstream).with(|route| route.body_bytes = Some(4));
    let gateway = Gateway::start(&site);
    let get = |uri: &str| http::Request::get(uri).version(http::Version::HTTP_2);
    let requests = vec![
        get("http://a.example/x/../y?z")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body("")
            .unwrap(),
        http::Request::post("http://a.example/post").body("body").unwrap(),
        http::Request::post("http://a.example/post")
            .body("bodybody")
            .unwrap(),
        get("http://a.example/%2f").body("").unwrap(),
        get("http://a.example/")
            .header("host", "b.example")
            .body("")
            .unwrap(),
        get("http://a.example/")
            .header("x-forwarded-for", "1.1.1.1")
            .body("")
            .unwrap(),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let statuses: Vec<_> = runtime
        .block_on(h2(&gateway, requests))
        .into_iter()
        .map(|a| a.unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 413, 400, 400, 200]);
    let seen = upstream.requests();
    assert_eq!(
        (seen[0].target.as_str(), seen[0].header("cookie")),
        ("/y?z", vec!["a=1; b=2"])
    );
    assert_eq!(seen[0].header("host"), ["a.example"]);
    assert_eq!(upstream.last().header("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn t30_a_client_hello_in_pieces_or_none_at_all_harms_nobody() {
    use std::io::{Read as _, Write as _};
    let dir = tempfile::tempdir().unwrap();
    let a = certificate(dir.path(), "a.test");
    let upstream = Upstream::text("hello");
    let mut site = Site::to(&upstream);
    site.config.listen[0].tls = Some(Tls::with(vec![a.clone()]));
    let gateway = Gateway::start(&site);
    // A whole hello of a real client, and then as many records as it has bytes, some of them empty.
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(config.into(), "a.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let body = &hello[5..];
    let record = |piece: &[u8]| {
        let mut record = vec![0x16, 3, 1];
        record.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        record.extend(piece);
        record
    };
    let in_pieces = |size: usize| -> Vec<u8> { body.chunks(size).flat_map(record).collect() };
    let lying = |at: usize, value: u8| {
        let mut bytes = hello.clone();
        bytes[at] = value;
        bytes
    };
    for (case, bytes, answered) in [
        ("whole", hello.clone(), Some(0x16)),
        ("in two", in_pieces(body.len() / 2 + 1), Some(0x16)),
        ("byte by byte", in_pieces(1), None),
        (
            "with an empty record",
            [record(b""), hello.clone()].concat(),
            None,
        ),
        ("cut short", hello[..40].to_vec(), None),
        ("a length that lies", lying(6, 0xff), None),
        ("another kind of record", lying(0, 0x17), None),
        ("another kind of message", lying(5, 2), None),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), None),
    ] {
        let mut stream = std::net::TcpStream::connect(gateway.address()).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut first = [0; 1];
        let got = stream.read(&mut first).unwrap_or(0);
        if let Some(kind) = answered {
            assert_eq!((got, first[0]), (1, kind), "{case}");
        }
        let (out, error) = curl(&gateway, "a.test", &a.cert, &[]);
        assert_eq!(out, "hello", "behind {case}: {error}");
    }
}
