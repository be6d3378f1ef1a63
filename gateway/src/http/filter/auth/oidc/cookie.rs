//! The cookies of a log-in: their names, how a long text is parted among several, and the lines that set and end them.
//! Knows nothing of what stands in them. Pure.

use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::filter::auth::place::cookies;

/// A header line.
pub(super) type Line = (HeaderName, HeaderValue);

/// Browsers take 4,096 bytes of name and value together (RFC 6265, 6.1).
const MOST_VALUE: usize = 3_900;
/// Most cookies that one session takes.
const MOST_PARTS: usize = 3;
/// Cookies of one name that are looked at: two come from a mistaken configuration, many from nobody honest.
const MOST_LIKE: usize = 4;

/// Names for one connection, with TLS or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jar<'a> {
    /// Without `__Host-`.
    pub(super) base: &'a str,
    /// With TLS. Browsers then take the cookie from this host alone, and only with TLS.
    pub(super) secure: bool,
}

impl Jar<'_> {
    fn session(self) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}{}", self.base)
    }

    fn part(self, at: usize) -> String {
        match at {
            0 => self.session(),
            _ => format!("{}-{at}", self.session()),
        }
    }

    /// Of the attempt with this id.
    pub(super) fn attempt(self, id: &str) -> String {
        format!("{}-login-{id}", self.session())
    }

    /// The session's text as it may stand in the request. Where a name is there several times, each is one.
    pub(super) fn sessions(self, head: &Parts) -> Vec<Vec<u8>> {
        let whole = |first: &[u8]| {
            let (count, text) = match first {
                [count @ b'1'..=b'3', b'.', text @ ..] => (usize::from(count - b'0'), text),
                _ => return None,
            };
            let mut whole = text.to_vec();
            for at in 1..count {
                whole.extend(self.texts(&head.headers, &self.part(at)).next()?);
            }
            (whole.len() <= MOST_PARTS * MOST_VALUE).then_some(whole)
        };
        self.texts(&head.headers, &self.session())
            .filter_map(whole)
            .collect()
    }

    /// The texts that stand in cookies of this name.
    pub(super) fn texts<'h>(self, headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        let named = cookies(headers).filter(move |(own, _)| *own == name.as_bytes());
        named.map(|(_, value)| value).take(MOST_LIKE)
    }

    /// Ids and texts of the attempts in the request.
    pub(super) fn attempts(self, head: &Parts) -> Vec<(String, &[u8])> {
        let prefix = self.attempt("");
        let named = cookies(&head.headers).filter_map(|(name, text)| {
            let id = std::str::from_utf8(name.strip_prefix(prefix.as_bytes())?).ok()?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            id.bytes().all(plain).then(|| (id.to_owned(), text))
        });
        named.collect()
    }

    /// Lines that keep a session's text in the browser for so many seconds, and end what is left of a longer one. `None`:
    /// it is too long.
    pub(super) fn keep(self, head: &Parts, text: &str, seconds: u64) -> Option<Vec<Line>> {
        let count = text.len().div_ceil(MOST_VALUE).max(1);
        if count > MOST_PARTS {
            return None;
        }
        let mut lines = Vec::with_capacity(count);
        for (at, part) in text.as_bytes().chunks(MOST_VALUE).enumerate() {
            let part = std::str::from_utf8(part).ok()?;
            let value = if at == 0 {
                format!("{count}.{part}")
            } else {
                part.to_owned()
            };
            lines.push(self.line(&self.part(at), &value, seconds)?);
        }
        lines.extend(self.rest(head, count));
        Some(lines)
    }

    /// The line that keeps an attempt's text.
    pub(super) fn keep_attempt(self, id: &str, text: &str, seconds: u64) -> Option<Line> {
        self.line(&self.attempt(id), text, seconds)
    }

    /// Lines that end what there is of a session.
    pub(super) fn end(self, head: &Parts) -> Vec<Line> {
        let first = self.line(&self.session(), "", 0);
        first.into_iter().chain(self.rest(head, 1)).collect()
    }

    pub(super) fn end_attempt(self, id: &str) -> Option<Line> {
        self.line(&self.attempt(id), "", 0)
    }

    /// Ends the parts from `from` on that the request has.
    fn rest(self, head: &Parts, from: usize) -> Vec<Line> {
        let parts = (from..MOST_PARTS).map(|at| self.part(at));
        let there = parts.filter(|name| self.texts(&head.headers, name).next().is_some());
        there.filter_map(|name| self.line(&name, "", 0)).collect()
    }

    fn line(self, name: &str, value: &str, seconds: u64) -> Option<Line> {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        let mut line = HeaderValue::try_from(text).ok()?;
        line.set_sensitive(true);
        Some((SET_COOKIE, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(cookie: &str) -> Parts {
        let request = http::Request::builder().header("cookie", cookie);
        request.body(()).unwrap().into_parts().0
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|(_, line)| line.to_str().unwrap()).collect()
    }

    /// What a browser sends when it was told these lines.
    fn sent(lines: &[Line]) -> Parts {
        let pairs = texts(lines)
            .into_iter()
            .map(|line| line.split(';').next().unwrap());
        head(&pairs.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_long_text_is_parted_and_put_together_again() {
        let jar = Jar {
            base: "s",
            secure: true,
        };
        for length in [0, 1, MOST_VALUE, MOST_VALUE + 1, 3 * MOST_VALUE] {
            let text = "x".repeat(length);
            let Some(lines) = jar.keep(&head("a=1"), &text, 60) else {
                panic!("{length} fits")
            };
            for line in texts(&lines) {
                let (pair, attributes) = line.split_once(';').unwrap();
                assert!(pair.len() <= 4_096, "{}", pair.len());
                assert_eq!(attributes, " Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
                assert!(pair.starts_with("__Host-s"), "{pair}");
            }
            if length > 0 {
                assert_eq!(jar.sessions(&sent(&lines)), [text.into_bytes()]);
            }
        }
        assert!(
            jar.keep(&head("a=1"), &"x".repeat(3 * MOST_VALUE + 1), 60)
                .is_none()
        );
    }

    #[test]
    fn what_is_left_of_a_longer_one_is_ended() {
        let jar = Jar {
            base: "s",
            secure: false,
        };
        let lines = jar.keep(&head("s=3.a; s-1=b; s-2=c; s-9=x"), "new", 60).unwrap();
        let ended = "; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";
        assert_eq!(
            texts(&lines),
            [
                "s=1.new; Path=/; Max-Age=60; HttpOnly; SameSite=Lax".to_owned(),
                format!("s-1={ended}"),
                format!("s-2={ended}")
            ]
        );
        let lines = jar.end(&head("s-1=b"));
        assert_eq!(texts(&lines), [format!("s={ended}"), format!("s-1={ended}")]);
    }

    #[test]
    fn names_of_the_other_kind_and_broken_parts_are_nothing() {
        let secure = Jar {
            base: "s",
            secure: true,
        };
        let plain = Jar {
            base: "s",
            secure: false,
        };
        assert!(secure.sessions(&head("s=1.a")).is_empty());
        assert!(plain.sessions(&head("__Host-s=1.a")).is_empty());
        for broken in ["s=a", "s=0.a", "s=4.a", "s=2.a", "s=", "S=1.a", "s=3.a; s-2=c"] {
            assert!(plain.sessions(&head(broken)).is_empty(), "{broken}");
        }
        assert_eq!(plain.sessions(&head("s=1.a; s=1.b")), [b"a", b"b"]);
        let both = head("s-login-x=1; s-login-y=2; __Host-s-login-z=3; s-logins=4");
        let found = plain.attempts(&both);
        assert_eq!(found, [("x".to_owned(), &b"1"[..]), ("y".to_owned(), &b"2"[..])]);
    }
}
