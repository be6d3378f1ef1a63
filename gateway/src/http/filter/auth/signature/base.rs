//! The text that a signature is made over (RFC 9421, 2.5), from what it says it covers. Pure.
//!
//! Components are those of the request as the upstream is to get it before any edit: the canonical path, one host. What the
//! gateway can not read in one way only (parameters of components that are not served, lines that are not there) makes no text.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::HeaderName;
use http::header::HOST;
use http::request::Parts;
use sfv::{InnerList, Item, ItemSerializer, ListSerializer};

use crate::http::filter::auth::introspect::encode;
use crate::http::headers::joined;
use crate::http::{forwarded, query};

/// Most components of one signature.
const MOST: usize = 64;

/// Why there is no text, for the log.
pub(super) type Fault = &'static str;

/// Names of what a signature covers, each with whether it is meant as it stands.
pub(super) fn covered(list: &InnerList) -> impl Iterator<Item = (&str, bool)> {
    list.items
        .iter()
        .filter_map(|item| Some((item.bare_item.as_string()?.as_str(), item.params.is_empty())))
}

/// The text.
///
/// # Errors
/// A component is none that this request has, or that is served.
pub(super) fn text(list: &InnerList, head: &Parts) -> Result<String, Fault> {
    if list.items.len() > MOST {
        return Err("it covers too many components");
    }
    let mut out = String::with_capacity(512);
    for (at, item) in list.items.iter().enumerate() {
        if list.items.iter().take(at).any(|other| other == item) {
            return Err("it covers a component twice");
        }
        let value = value(item, head)?;
        let name = ItemSerializer::new()
            .bare_item(&item.bare_item)
            .parameters(&item.params)
            .finish();
        // Infallible, into a text.
        let _ = writeln!(out, "{name}: {value}");
    }
    let mut list_out = ListSerializer::new();
    {
        let mut inner = list_out.inner_list();
        inner.items(&list.items);
        inner.finish().parameters(&list.params);
    }
    let parameters = list_out.finish().unwrap_or_default();
    let _ = write!(out, "\"@signature-params\": {parameters}");
    Ok(out)
}

fn value<'h>(item: &'h Item, head: &'h Parts) -> Result<Cow<'h, str>, Fault> {
    let name = item
        .bare_item
        .as_string()
        .ok_or("a component is no string")?
        .as_str();
    if name == "@query-param" {
        return parameter(item, head).map(Cow::Owned);
    }
    if !item.params.is_empty() {
        return Err("a component has a parameter that is not served");
    }
    let path = head.uri.path();
    let path = if path.is_empty() { "/" } else { path };
    let target = || match head.uri.query() {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    };
    Ok(match name {
        "@method" => Cow::Borrowed(head.method.as_str()),
        "@authority" => Cow::Owned(authority(head)?),
        "@scheme" => Cow::Borrowed(scheme(head)?),
        "@path" => Cow::Borrowed(path),
        "@query" => Cow::Owned(format!("?{}", head.uri.query().unwrap_or_default())),
        "@request-target" => target(),
        "@target-uri" => Cow::Owned(format!("{}://{}{}", scheme(head)?, authority(head)?, target())),
        other if other.starts_with('@') => return Err("it covers a component that is not served"),
        line => {
            let name = HeaderName::from_bytes(line.as_bytes()).ok();
            let name = name.filter(|name| name.as_str() == line);
            let name = name.ok_or("it covers what is no header line")?;
            joined(&head.headers, &name).ok_or("it covers a header line that is not there")?
        }
    })
}

fn scheme(head: &Parts) -> Result<&str, Fault> {
    let scheme = head
        .headers
        .get(forwarded::PROTO)
        .and_then(|line| line.to_str().ok());
    scheme.ok_or("the scheme is not known")
}

/// In lower case, and without the port that the scheme has anyway (RFC 9421, 2.2.3).
fn authority(head: &Parts) -> Result<String, Fault> {
    let host = head.headers.get(HOST).and_then(|line| line.to_str().ok());
    let host = host.ok_or("the host is not known")?.to_ascii_lowercase();
    let usual = if scheme(head)? == "https" { ":443" } else { ":80" };
    Ok(match host.strip_suffix(usual) {
        Some(bare) => bare.to_owned(),
        None => host,
    })
}

/// The value of the one parameter of the query that has a name (RFC 9421, 2.2.8).
fn parameter(item: &Item, head: &Parts) -> Result<String, Fault> {
    let name = match (item.params.get("name"), item.params.len()) {
        (Some(name), 1) => name.as_string(),
        _ => None,
    };
    let name = name.ok_or("a parameter of the query is not named")?;
    let name = query::decode(name.as_str());
    let name = std::str::from_utf8(&name).map_err(|_| "a parameter's name is not text")?;
    let mut values = query::values(head.uri.query().unwrap_or_default(), name);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("it covers a parameter of the query that is not there once");
    };
    let mut out = String::new();
    encode(&mut out, &value);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{Dictionary, ListEntry, Parser};

    use super::*;

    fn head(target: &str, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::post(target).body(()).expect("a request");
        for (name, value) in lines {
            request
                .headers_mut()
                .append(*name, value.parse().expect("a value"));
        }
        request.into_parts().0
    }

    fn of(input: &str, head: &Parts) -> Result<String, Fault> {
        let input: Dictionary = Parser::new(input).parse().map_err(|_| "not parsed")?;
        match input.values().next() {
            Some(ListEntry::InnerList(list)) => text(list, head),
            _ => Err("no list"),
        }
    }

    /// The request of RFC 9421, B.2.
    fn example() -> Parts {
        head(
            "/foo?param=Value&Pet=dog",
            &[
                ("host", "example.com"),
                ("x-forwarded-proto", "https"),
                ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
                ("content-type", "application/json"),
                (
                    "content-digest",
                    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
                ),
                ("content-length", "18"),
            ],
        )
    }

    /// RFC 9421, B.2.2, B.2.3 and B.2.6.
    #[test]
    fn the_text_is_that_of_the_examples() {
        let head = example();
        for (input, base) in [
            (
                r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
                "\"@authority\": example.com\n\"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\"@query-param\";name=\"Pet\": dog\n\"@signature-params\": (\"@authority\" \"content-digest\" \"@query-param\";name=\"Pet\");created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\"",
            ),
            (
                r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
                "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\"@authority\": example.com\n\"content-type\": application/json\n\"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\"content-length\": 18\n\"@signature-params\": (\"date\" \"@method\" \"@path\" \"@query\" \"@authority\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-rsa-pss\"",
            ),
            (
                r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
                "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\"@authority\": example.com\n\"content-type\": application/json\n\"content-length\": 18\n\"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
            ),
        ] {
            assert_eq!(of(input, &head).as_deref(), Ok(base));
        }
    }

    /// RFC 9421, 2.1 and 2.2.
    #[test]
    fn components_are_derived_as_the_rfc_shows() {
        let head = head(
            "/path?param=value&foo=bar&baz=batman&qux=&fa%C3%A7ade%22%3A%20=something&twice=1&twice=2",
            &[
                ("host", "WWW.Example.com:443"),
                ("x-forwarded-proto", "https"),
                ("x-ows", "  Leading and trailing whitespace.   "),
                ("cache-control", "max-age=60"),
                ("cache-control", "   must-revalidate"),
                ("x-empty", ""),
            ],
        );
        let one = |component: &str| {
            let made = of(&format!("a=({component})"), &head)?;
            let line = made.lines().next().unwrap_or_default().to_owned();
            Ok::<_, Fault>(
                line.split_once(": ")
                    .map_or(String::new(), |(_, value)| value.to_owned()),
            )
        };
        for (component, value) in [
            ("\"@authority\"", "www.example.com"),
            ("\"@scheme\"", "https"),
            ("\"@path\"", "/path"),
            ("\"x-ows\"", "Leading and trailing whitespace."),
            ("\"cache-control\"", "max-age=60, must-revalidate"),
            ("\"x-empty\"", ""),
            ("\"@query-param\";name=\"baz\"", "batman"),
            ("\"@query-param\";name=\"qux\"", ""),
            ("\"@query-param\";name=\"fa%C3%A7ade%22%3A%20\"", "something"),
        ] {
            assert_eq!(one(component).as_deref(), Ok(value), "{component}");
        }
        assert!(
            one("\"@target-uri\"")
                .is_ok_and(|uri| uri.starts_with("https://www.example.com/path?param=value&"))
        );
        assert!(one("\"@request-target\"").is_ok_and(|target| target.starts_with("/path?param=")));
        for bad in [
            "\"@status\"",
            "\"@signature-params\"",
            "\"@none\"",
            "\"x-missing\"",
            "\"X-Ows\"",
            "\"x-ows\";bs",
            "\"x-ows\";sf",
            "\"x-ows\";req",
            "\"x-ows\";tr",
            "\"@path\";req",
            "\"@query-param\"",
            "\"@query-param\";name=1",
            "\"@query-param\";name=\"twice\"",
            "\"@query-param\";name=\"none\"",
            "\"@path\" \"@path\"",
            "path",
            "1",
            "\"a b\"",
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
        let many = (0..65)
            .map(|n| format!("\"x-{n}\""))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(one(&many), Err("it covers too many components"));
    }

    proptest! {
        /// Whatever comes, there is no panic; and every line of the text is one that was asked for.
        #[test]
        fn no_input_steers_the_text(input in "[a-z]=\\(\"(@method|@path|@query|x-a|date)\"( \"[@a-z-]{1,12}\"){0,3}\\)(;[a-z]{1,6}(=[0-9\"a-z?:]{0,6})?){0,3}|\\PC{0,60}", value in "[ -~]{0,40}") {
            let head = head("/p?q=1", &[("host", "a"), ("x-forwarded-proto", "http"), ("x-a", &value)]);
            if let Ok(text) = of(&input, &head) {
                let list: Dictionary = Parser::new(&*input).parse().expect("parsed before");
                let Some(ListEntry::InnerList(list)) = list.values().next() else { panic!("a list") };
                prop_assert_eq!(text.lines().count(), list.items.len() + 1);
                prop_assert!(text.lines().last().is_some_and(|line| line.starts_with("\"@signature-params\": (")));
            }
        }
    }
}
