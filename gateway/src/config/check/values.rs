//! Values made of facts of a request: `"{claim.sub}"`, `"user-{id}"`. Owns the names of the facts.

use super::{actions, headers};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Fact, PathMatch, Shape, ValueTemplate};

/// Longest value as written, in bytes.
const MOST: usize = 2048;
/// What there is besides the captures of the path.
const KNOWN: &str = "{host}, {client_ip}, {request_id}, {method}, {path}, {query}, {query.NAME}, {scheme}, {identity}, \
                     {claim.NAME} and {header.NAME}";

/// A text with `{name}` in it; `{{` and `}}` stand for single braces.
///
/// # Errors
/// A name that is none, with those that there are.
pub(super) fn template(text: &str, path: Option<&PathMatch>) -> Result<ValueTemplate, Wrong> {
    let refuse = || Wrong::new(format!("{} can not be a value", quote(text)));
    if text.len() > MOST {
        return Err(refuse().hint(format!("at most {MOST} bytes")));
    }
    let captures = path.map(actions::names);
    let mut facts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        plain.push_str(before);
        let doubled = ["{{", "}}"]
            .into_iter()
            .find_map(|brace| Some((&brace[..1], after.strip_prefix(brace)?)));
        if let Some((brace, after)) = doubled {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let named = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let Some((name, after)) = named else {
            return Err(refuse().hint("a place to fill in is written {name}, a single brace {{ or }}"));
        };
        if !plain.is_empty() {
            facts.push(Fact::Text(std::mem::take(&mut plain)));
        }
        facts.push(fact(name, path, captures.as_ref()).map_err(|hint| refuse().hint(hint))?);
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        facts.push(Fact::Text(plain));
    }
    Ok(ValueTemplate(facts))
}

/// The text, if nothing in it is to be filled in.
pub(super) fn plain(template: &ValueTemplate) -> Option<&str> {
    match template.0.as_slice() {
        [] => Some(""),
        [Fact::Text(text)] => Some(text),
        _ => None,
    }
}

fn fact(
    name: &str,
    path: Option<&PathMatch>,
    captures: Option<&std::collections::BTreeSet<String>>,
) -> Result<Fact, String> {
    let fact = match name {
        "host" => Fact::Host,
        "client_ip" => Fact::ClientIp,
        "request_id" => Fact::RequestId,
        "method" => Fact::Method,
        "path" => Fact::Path,
        "query" => Fact::Query,
        "scheme" => Fact::Scheme,
        "identity" => Fact::Identity,
        "rest" => {
            let has_rest = |path: &PathMatch| matches!(path.shape, Shape::Segments { prefix: true, .. });
            if path.is_some_and(|path| !has_rest(path)) {
                return Err("there is no {rest}: the path does not end in /**".to_owned());
            }
            Fact::Rest
        }
        _ => match name.split_once('.') {
            Some(("claim", claim)) if !claim.is_empty() => Fact::Claim(claim.to_owned()),
            Some(("query", name)) if !name.is_empty() => Fact::Parameter(name.to_owned()),
            Some(("header", name)) => {
                let name = headers::name(name).map_err(|wrong| wrong.to_string())?;
                Fact::Header(name)
            }
            _ if captures.is_none_or(|names| names.contains(name)) => Fact::Capture(name.to_owned()),
            _ => {
                return Err(format!(
                    "the path captures no {}; there are {KNOWN}, and {{{{ for a brace",
                    quote(name)
                ));
            }
        },
    };
    Ok(fact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::patterns;

    #[test]
    fn names_are_resolved_when_the_configuration_is_read() {
        let path = patterns::path("/u/{id}/**").expect("a pattern");
        let read = |text: &str| template(text, Some(&path)).map(|template| template.0);
        assert_eq!(read("plain"), Ok(vec![Fact::Text("plain".into())]));
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("{{a}} {{"), Ok(vec![Fact::Text("{a} {".into())]));
        assert_eq!(
            read("u{id}/{rest}{claim.a.b}{header.X-A}{query.q}"),
            Ok(vec![
                Fact::Text("u".into()),
                Fact::Capture("id".into()),
                Fact::Text("/".into()),
                Fact::Rest,
                Fact::Claim("a.b".into()),
                Fact::Header(http::HeaderName::from_static("x-a")),
                Fact::Parameter("q".into()),
            ])
        );
        for bad in [
            "{",
            "}",
            "{id",
            "id}",
            "{nobody}",
            "{}",
            "{claim.}",
            "{header.a b}",
            "{header.}",
            "{ id }",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let exact = patterns::path("/u/{id}").expect("a pattern");
        assert!(template("{rest}", Some(&exact)).is_err());
        assert!(
            template("{whatever}", None).is_ok(),
            "the path's own fault is told elsewhere"
        );
    }
}
