//! One record for each request, written in one place when the response has ended.
//!
//! Off means free: [`wanted`] is asked before anything is kept for the record. What a client can choose is written
//! through [`Plain`], so that it can neither end a line nor move a terminal's cursor.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Target of the records, for filters.
pub const TARGET: &str = "gateway::access";

/// Whether anyone listens to records.
#[must_use]
pub fn wanted() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// What is said of one request.
#[derive(Debug)]
pub struct Record<'a> {
    pub request_id: &'a str,
    /// The caller that counts: the socket's address, or the one a trusted proxy named.
    pub client: IpAddr,
    /// The name of who called, where the route asks for one.
    pub caller: Option<&'a str>,
    pub socket: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// Canonical where there is such a form, else as sent.
    pub path: &'a str,
    /// 499 if the client went away before there was an answer.
    pub status: u16,
    /// Code of a reject.
    pub reject: Option<&'static str>,
    /// Why an upstream gave no answer, or not all of it: a word of a closed list, such as `certificate_expired`.
    pub reason: Option<&'static str>,
    pub route: &'a str,
    /// The last one tried.
    pub endpoint: Option<&'a str>,
    /// Endpoints tried.
    pub tries: u32,
    /// Bytes of the response's body that went out.
    pub bytes: u64,
    pub duration: Duration,
    /// Whether the response went out whole.
    pub complete: bool,
}

/// Writes the record.
pub fn write(record: &Record<'_>) {
    tracing::info!(
        target: "gateway::access",
        request_id = %Plain(record.request_id),
        client = %record.client,
        caller = record.caller.map(|caller| tracing::field::display(Plain(caller))),
        socket = %record.socket,
        method = %Plain(record.method),
        host = %Plain(record.host),
        path = %Plain(record.path),
        status = record.status,
        reject = record.reject,
        reason = record.reason,
        route = %Plain(record.route),
        endpoint = record.endpoint,
        tries = record.tries,
        bytes = record.bytes,
        duration_us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        complete = record.complete,
    );
}

/// Text from outside: everything but visible ASCII is written as an escape.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.bytes().all(|b| b.is_ascii_graphic()) {
            return f.write_str(self.0);
        }
        for c in self.0.chars() {
            if c.is_ascii_graphic() {
                write!(f, "{c}")?
            } else {
                write!(f, "{}", c.escape_unicode())?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Plain;

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let forged = Plain("/a\r\nstatus=200 \u{1b}[2J\u{202e}").to_string();
        assert!(forged.bytes().all(|b| b.is_ascii_graphic()), "{forged}");
        assert_eq!(Plain("/plain?x=1").to_string(), "/plain?x=1");
    }
}
