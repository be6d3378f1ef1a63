//! Rules as text, one a line: `NET [until=MS] [forced] [# REASON]`. On disk and on the admin socket a list of a million
//! is these lines, written and read one by one; nothing holds all of them as text.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use ipnet::IpNet;

/// One rule, as a line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub net: IpNet,
    /// Milliseconds since 1970; `None` for no end.
    pub until_ms: Option<u64>,
    /// Denied although it cuts off someone protected.
    pub forced: bool,
    pub reason: Option<Arc<str>>,
}

/// Texts that many entries share, each kept once.
#[derive(Debug, Default)]
pub struct Reasons {
    last: Option<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Reasons {
    /// `text`, shared with all entries that have the same.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        // Neighbours mostly have the same.
        if let Some(last) = self.last.as_ref().filter(|last| ***last == *text) {
            return Arc::clone(last);
        }
        let shared = match self.known.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                self.known.insert(Arc::clone(&new));
                new
            }
        };
        self.last = Some(Arc::clone(&shared));
        shared
    }
}

/// Appends the one spelling of a network: a single address without its length.
pub fn put_net(out: &mut Vec<u8>, net: &IpNet) {
    let result = if net.prefix_len() == net.max_prefix_len() {
        write!(out, "{}", net.addr())
    } else {
        write!(out, "{net}")
    };
    debug_assert!(result.is_ok(), "memory takes everything");
}

/// Appends one line, with its end.
pub fn put(out: &mut Vec<u8>, net: &IpNet, until_ms: Option<u64>, forced: bool, reason: Option<&str>) {
    put_net(out, net);
    if let Some(until) = until_ms {
        let result = write!(out, " until={until}");
        debug_assert!(result.is_ok(), "memory takes everything");
    }
    if forced {
        out.extend_from_slice(b" forced");
    }
    if let Some(reason) = reason {
        out.extend_from_slice(b" # ");
        for byte in reason.bytes() {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\\' => out.extend_from_slice(b"\\\\"),
                other => out.push(other),
            }
        }
    }
    out.push(b'\n');
}

/// Reads one line without its end.
pub fn read(line: &str, reasons: &mut Reasons) -> Result<Line, String> {
    let (body, reason) = match line.split_once(" # ") {
        Some((body, reason)) => (body, Some(reason)),
        None => (line, None),
    };
    let mut words = body.split(' ');
    let first = words.next().unwrap_or_default();
    let mut line = Line {
        net: net(first).ok_or_else(|| format!("{first:?} is not a network"))?,
        until_ms: None,
        forced: false,
        reason: reason.map(|reason| {
            if reason.contains('\\') {
                reasons.share(&unescaped(reason))
            } else {
                reasons.share(reason)
            }
        }),
    };
    for word in words {
        if word == "forced" {
            line.forced = true;
        } else if let Some(until) = word.strip_prefix("until=") {
            line.until_ms = Some(
                until
                    .parse()
                    .map_err(|_| format!("{until:?} is no time in milliseconds"))?,
            );
        } else {
            return Err(format!("{word:?} is not understood"));
        }
    }
    Ok(line)
}

/// A network, or an address, without bits beyond its length.
pub fn net(text: &str) -> Option<IpNet> {
    let net: IpNet = if text.contains('/') {
        text.parse().ok()?
    } else {
        text.parse::<std::net::IpAddr>().ok()?.into()
    };
    (net == super::place::canonical(net)).then_some(net)
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_line_says_is_refused() {
        for text in [
            "",
            "x",
            "10.0.0.1/8",
            "::ffff:10.0.0.1",
            "10.0.0.0/8 until=x",
            "10.0.0.0/8 more",
            "10.0.0.0/33",
            "10.0.0.0/8  forced",
        ] {
            assert!(read(text, &mut Reasons::default()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn equal_reasons_are_one() {
        let mut reasons = Reasons::default();
        let first = reasons.share("feed");
        let _ = reasons.share("other");
        assert!(Arc::ptr_eq(&first, &reasons.share("feed")));
    }

    proptest! {
        #[test]
        fn a_line_comes_back_as_it_was(
            addr: u32, bits in 0..=32_u8, v6: u128, bits6 in 0..=128_u8, four: bool,
            until_ms: Option<u64>, forced: bool, reason in prop::option::of("(?s).{0,40}"),
        ) {
            let net = if four {
                IpNet::new(std::net::Ipv4Addr::from_bits(addr).into(), bits)
            } else {
                IpNet::new(std::net::Ipv6Addr::from_bits(v6).into(), bits6)
            };
            let net = crate::dataplane::place::canonical(net.expect("a length"));
            let mut text = Vec::new();
            put(&mut text, &net, until_ms, forced, reason.as_deref());
            let text = String::from_utf8(text).expect("text");
            let line = text.strip_suffix('\n').expect("an end");
            prop_assert!(!line.contains('\n'));
            let read = read(line, &mut Reasons::default()).expect("a good line");
            prop_assert_eq!(read, Line { net, until_ms, forced, reason: reason.map(Into::into) });
        }

        #[test]
        fn no_text_makes_a_panic(text in "(?s).{0,60}") {
            let _ = read(&text, &mut Reasons::default());
        }
    }
}
