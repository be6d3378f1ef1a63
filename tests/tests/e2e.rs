//! The whole story on real packets: veth in network namespaces, XDP in native mode, real curl, the real binary.
//!
//! Proofs are counters and delivered requests, not the absence of something for a while.

use anyhow::{Context as _, Result, ensure};
use gateway_tests::gateway::{Gateway, Home, command, finish, wait_until};
use gateway_tests::net::{A, A6, B, B6, GATEWAY, GATEWAY6, Namespace, Wire};
use gateway_tests::origin::Origin;
use rustix::process::Signal;
use serde_json::Value;

#[path = "e2e/clients.rs"]
mod clients;
#[path = "e2e/conformance.rs"]
mod conformance;
#[path = "e2e/cookies.rs"]
mod cookies;
#[path = "e2e/flood.rs"]
mod flood;
#[path = "e2e/interfaces.rs"]
mod interfaces;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/lists.rs"]
mod lists;
#[path = "e2e/ops.rs"]
mod ops;
#[path = "e2e/rules.rs"]
mod rules;
#[path = "e2e/story.rs"]
mod story;
#[path = "e2e/tampered.rs"]
mod tampered;
#[path = "e2e/trouble.rs"]
mod trouble;
#[path = "e2e/watch.rs"]
mod watch;

const URL: &str = "http://10.77.0.1:8080/";
const GOOD: &[&str] = &["X-API-Key: right"];
const BAD: &[&str] = &["X-API-Key: wrong"];

/// SHA-256 of `right`.
const KEY_HASH: &str = "27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";

fn config(xdp: &str, block_for: &str, more: &str) -> String {
    format!(
        "listen:
  - address: 0.0.0.0:8080
  - address: '[::]:8080'
admin: {{socket: {{socket}}, metrics: 127.0.0.1:9901}}
state_dir: {{state}}
workers: 2
xdp:
  interfaces: [gw0]
  mode: native
  pin_dir: {{pins}}
{xdp}
strikes:
  block: {{after: 3, within: 1m, for: {block_for}}}
routes:
  - match: {{path: /open/**}}
    upstream: [{{url: 'http://127.0.0.1:9000'}}]
  - match: {{path: /**}}
    auth: {{api_key: {{header: X-API-Key, keys: [{{name: tester, sha256: {KEY_HASH}}}]}}}}
    upstream: [{{url: 'http://127.0.0.1:9000'}}]
{more}"
    )
}

/// A wire, an upstream and directories, ready for a gateway.
struct Stage {
    wire: Wire,
    origin: Origin,
    home: Home,
}

impl Stage {
    fn new(config: &str) -> Result<Self> {
        let wire = Wire::new()?;
        let origin = Origin::start(&wire.gateway, "127.0.0.1:9000")?;
        let home = Home::new()?;
        home.write(config)?;
        Ok(Self { wire, origin, home })
    }

    fn start(&self) -> Result<Gateway> {
        Gateway::start(&self.wire.gateway, &self.home, &[])
    }

    /// Starts one that is not ready as long as an interface is missing.
    fn start_unready(&self) -> Result<Gateway> {
        let gateway = Gateway::spawn(&self.wire.gateway, &self.home, &[])?;
        gateway.wait_for_log("ready version=")?;
        Ok(gateway)
    }

    /// A `gateway` command that must end with `code`; returns what it printed.
    fn expect(&self, code: i32, words: &[&str]) -> Result<String> {
        let (exit, out, err) = command(&self.wire.gateway, &self.home, words)?;
        ensure!(
            exit == code,
            "gateway {words:?} ended with {exit}, not {code}:\n{out}\n{err}"
        );
        Ok(out + &err)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        self.json_ending(0, words)
    }

    /// As [`Stage::json`], for a command that must end with `code`.
    fn json_ending(&self, code: i32, words: &[&str]) -> Result<Value> {
        let (exit, out, err) = command(&self.wire.gateway, &self.home, &[words, &["--json"]].concat())?;
        ensure!(
            exit == code,
            "gateway {words:?} ended with {exit}, not {code}:\n{out}\n{err}"
        );
        serde_json::from_str(&out).with_context(|| format!("gateway {words:?} printed {out}"))
    }

    /// Packets counted for a reason.
    fn packets(&self, reason: &str) -> Result<u64> {
        let status = self.json(&["status"])?;
        let counters = status["counters"].as_array().context("counters")?;
        let row = counters
            .iter()
            .find(|row| row["reason"] == reason)
            .with_context(|| format!("no {reason}"))?;
        row["packets"].as_u64().context("a number")
    }

    fn verdict(&self, addr: &str) -> Result<(String, Value)> {
        let explained = self.json(&["explain", addr])?;
        let outcome = explained["outcome"].as_str().context("an outcome")?.to_owned();
        Ok((outcome, explained))
    }

    /// One number from the gateway's own metrics endpoint.
    fn metric(&self, name: &str) -> Result<f64> {
        let out =
            self.wire
                .gateway
                .run(&["curl", "-sf", "--noproxy", "*", "http://127.0.0.1:9901/metrics"])?;
        let text = String::from_utf8(out.stdout)?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
        let line = line.with_context(|| format!("no {name} in\n{text}"))?;
        Ok(line.rsplit(' ').next().context("a value")?.parse()?)
    }

    /// Status and text of the readiness probe.
    fn ready(&self) -> Result<(String, String)> {
        let url = "http://127.0.0.1:9901/readyz";
        let words = ["curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", url];
        let text = String::from_utf8(self.wire.gateway.run(&words)?.stdout)?;
        let (text, status) = text.rsplit_once('\n').context("two lines")?;
        Ok((status.to_owned(), text.trim().to_owned()))
    }

    /// Waits until the readiness probe says `status`; returns its text.
    fn wait_ready(&self, status: &str) -> Result<String> {
        let mut text = String::new();
        wait_until(&format!("{status} of /readyz"), || {
            let (now, said) = self.ready()?;
            text = said;
            Ok(now == status)
        })?;
        Ok(text)
    }

    /// The XDP program of the gateway's interface as the kernel lists it.
    fn program_on_wire(&self) -> Result<Option<u64>> {
        let out = self
            .wire
            .gateway
            .run(&["ip", "-j", "-d", "link", "show", "dev", "gw0"])?;
        let links: Value = serde_json::from_slice(&out.stdout)?;
        Ok(links[0]["xdp"]["prog"]["id"].as_u64())
    }
}
