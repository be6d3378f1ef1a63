//! Certificates that are renewed under a running gateway.

use std::path::Path;

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::Upstream;

use super::{Stage, everything_to};

/// A new pair for `a.test`, good until the first of January of `year`.
fn pair(year: i32) -> Result<(String, String)> {
    let mut params = rcgen::CertificateParams::new(["a.test".to_owned()])?;
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Whether the gateway shows the certificate in `file` to who comes.
fn shows(stage: &Stage, file: &Path) -> Result<bool> {
    let port = stage.address.port();
    let url = format!("https://a.test:{port}/");
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-m", "5", "--noproxy", "*", "-o", "/dev/null"]);
    curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1"), "--cacert"])
        .arg(file);
    Ok(curl.arg(url).status()?.success())
}

#[test]
fn t48_a_renewed_certificate_is_taken_up_and_a_bad_pair_is_refused() -> Result<()> {
    let upstream = Upstream::text("ok");
    let stage = Stage::new()?;
    let (cert, key) = (stage.file("a.crt"), stage.file("a.key"));
    let copies = [stage.file("one.crt"), stage.file("two.crt")];
    let put = |(chain, secret): &(String, String)| -> Result<()> {
        std::fs::write(&cert, chain)?;
        Ok(std::fs::write(&key, secret)?)
    };
    let (one, two, bad) = (pair(2100)?, pair(2101)?, pair(2102)?);
    std::fs::write(&copies[0], &one.0)?;
    std::fs::write(&copies[1], &two.0)?;
    put(&one)?;
    let listener = format!(
        "\n    tls: {{certificates: [{{cert: {}, key: {}}}]}}",
        cert.display(),
        key.display()
    );
    let routes = everything_to(&upstream);
    stage.write(&listener, &routes)?;
    let gateway = stage.start()?;
    ensure!(
        shows(&stage, &copies[0])? && !shows(&stage, &copies[1])?,
        "the first"
    );
    let end = format!(
        "gateway_certificate_not_after_seconds{{file=\"{}\"}}",
        cert.display()
    );
    assert_eq!(stage.metric(&end)?, 4_102_444_800.0);

    // Nobody tells the gateway.
    put(&two)?;
    wait_until("renewed certificate", || shows(&stage, &copies[1]))?;
    assert_eq!(stage.metric(&end)?, 4_133_980_800.0);
    ensure!(
        stage.expect(0, &["status"])?.contains("a.crt is good for"),
        "status"
    );

    // A key that is another's: refused, and loudly.
    std::fs::write(&key, &bad.1)?;
    gateway.wait_for_log("CERTIFICATES NOT RENEWED")?;
    ensure!(gateway.log().contains("a.key"), "{}", gateway.log());
    let status = stage.expect(0, &["status"])?;
    ensure!(
        status.contains("CERTIFICATES NOT RENEWED, as before: ") && status.contains("a.key"),
        "{status}"
    );
    ensure!(shows(&stage, &copies[1])?, "the old one stays");
    assert_eq!(stage.metric("gateway_certificate_reload_failures_total")?, 1.0);
    let told = stage.expect(2, &["reload"])?;
    ensure!(told.contains("does not belong"), "{told}");
    ensure!(shows(&stage, &copies[1])?, "the old one stays");
    std::fs::remove_file(&cert)?;
    wait_until("second failure", || {
        Ok(stage.metric("gateway_certificate_reload_failures_total")? == 2.0)
    })?;

    put(&one)?;
    wait_until("mended certificate", || shows(&stage, &copies[0]))?;
    assert_eq!(stage.metric(&end)?, 4_102_444_800.0);
    Ok(())
}

#[test]
fn curl_speaks_the_proxy_protocol_to_it() -> Result<()> {
    let upstream = Upstream::text("ok");
    let stage = Stage::new()?;
    let (chain, secret) = pair(2100)?;
    std::fs::write(stage.file("a.crt"), chain)?;
    std::fs::write(stage.file("a.key"), secret)?;
    // Relative names start from the configuration's directory.
    stage.write(
        "\n    proxy_protocol: true\n    tls: {certificates: [{cert: a.crt, key: a.key}]}",
        &format!("trusted_proxies: [127.0.0.0/8]\n{}", everything_to(&upstream)),
    )?;
    let _gateway = stage.start()?;
    let port = stage.address.port();
    let ask = |extra: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-s",
            "-m",
            "5",
            "--noproxy",
            "*",
            "--resolve",
            &format!("a.test:{port}:127.0.0.1"),
        ]);
        curl.arg("--cacert").arg(stage.file("a.crt")).args(extra);
        curl.arg(format!("https://a.test:{port}/")).output()
    };
    for version in ["--http1.1", "--http2"] {
        let output = ask(&["--haproxy-protocol", version])?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok", "{version}");
    }
    ensure!(!ask(&[])?.status.success(), "without it there is no TLS");
    wait_until("count", || {
        Ok(stage.metric("gateway_rejects_total{route=\"-\",code=\"proxy_protocol\"}")? >= 1.0)
    })
}
