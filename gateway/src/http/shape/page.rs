//! Bodies written anew by a template (Jinja).
//!
//! A template has the request's facts and the body, and nothing else: there is no loader, no include, no function that reaches
//! out. Its steps and its output are bounded, so that no body makes it run on. What it prints is escaped as the content type asks:
//! as JSON, as XML or HTML, or not at all.

use std::io::{self, Write};

use http::HeaderValue;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use crate::config::page;

/// Steps of one rendering: some ten milliseconds.
const FUEL: u64 = 200_000;
/// Deepest nesting of calls.
const RECURSION: usize = 32;
const NAME: &str = "body";

/// A template, compiled.
#[derive(Debug)]
pub struct Page {
    environment: Environment<'static>,
    pub content_type: HeaderValue,
}

/// It did not come to its end: the body lacks what it takes for granted, or it took too many steps or too much room.
#[derive(Debug, thiserror::Error)]
#[error("the template did not come to its end: {0}")]
pub struct Failed(#[from] minijinja::Error);

impl Failed {
    /// Whether the body lacks what the template takes for granted. Anything else is the template's own fault: it was stopped at a
    /// bound, or it uses what there is not.
    #[must_use]
    pub fn is_of_the_body(&self) -> bool {
        // What minijinja says of a nesting of calls that is too deep has no kind of its own.
        let ran_on = |detail: &str| detail.contains("recursion limit");
        let values = [
            ErrorKind::UndefinedError,
            ErrorKind::InvalidOperation,
            ErrorKind::CannotUnpack,
            ErrorKind::NonPrimitive,
            ErrorKind::NonKey,
            ErrorKind::BadSerialization,
        ];
        values.contains(&self.0.kind()) && !self.0.detail().is_some_and(ran_on)
    }
}

impl Page {
    /// `None` if it is not well formed, which the configuration has ruled out.
    #[must_use]
    pub fn compile(source: &str, content_type: &str) -> Option<Self> {
        let mut environment = page::environment();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let escape = match essence {
            "text/html" | "application/xml" | "text/xml" => AutoEscape::Html,
            "application/json" => AutoEscape::Json,
            other if other.ends_with("+xml") => AutoEscape::Html,
            other if other.ends_with("+json") => AutoEscape::Json,
            _ => AutoEscape::None,
        };
        environment.set_auto_escape_callback(move |_| escape.clone());
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.add_template_owned(NAME, source.to_owned()).ok()?;
        Some(Self {
            environment,
            content_type: HeaderValue::from_str(content_type).ok()?,
        })
    }

    /// What it makes of the context, of at most `most` bytes.
    ///
    /// # Errors
    /// It did not come to its end.
    pub fn render(&self, context: Value, most: usize) -> Result<Vec<u8>, Failed> {
        let mut out = Bounded {
            bytes: Vec::new(),
            most,
        };
        self.environment
            .get_template(NAME)?
            .render_captured_to(context, &mut out)?;
        Ok(out.bytes)
    }
}

struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.most {
            return Err(io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn rendered(source: &str, content_type: &str, context: Value) -> Result<String, String> {
        let page = Page::compile(source, content_type).ok_or("not well formed")?;
        let out = page.render(context, 1000).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn what_is_printed_is_escaped_for_its_place() {
        let context = || context! { body => context! { name => "a\"<b>", items => vec![1, 2] } };
        let json = rendered(
            "{\"n\": {{ body.name }}, \"all\": {{ body.items }}, \"no\": {{ body.nothing }}}",
            "application/json",
            context(),
        );
        let value: serde_json::Value = serde_json::from_str(&json.expect("rendered")).expect("JSON");
        assert_eq!(value["n"], "a\"<b>");
        assert_eq!(value["all"], serde_json::json!([1, 2]));
        let xml = rendered(
            "<n>{{ body.name }}</n>{% for i in body.items %}<i>{{ i }}</i>{% endfor %}",
            "application/xml",
            context(),
        );
        assert_eq!(xml.as_deref(), Ok("<n>a&quot;&lt;b&gt;</n><i>1</i><i>2</i>"));
        assert_eq!(
            rendered("{{ body.name }}", "text/plain", context()).as_deref(),
            Ok("a\"<b>")
        );
    }

    #[test]
    fn the_template_s_own_fault_is_told_from_what_a_body_lacks() {
        let many: Vec<u32> = (0..1000).collect();
        let lacks = |source: &str| {
            let page = Page::compile(source, "text/plain").expect("well formed");
            let context = context! { body => context! { many => many.clone() } };
            page.render(context, 1000).expect_err("no end").is_of_the_body()
        };
        let steps = "{% for a in body.many %}{% for b in body.many %}{% endfor %}{% endfor %}";
        let room = "{% for a in body.many %}xxxxxxxxxx{% endfor %}";
        let names = [
            "{{ nobody() }}",
            "{{ body.many|indent }}",
            "{{ body.many|map('nofilter')|list }}",
        ];
        let uses = [
            "{{ body.many is strange }}",
            "{{ body.many|replace }}",
            "{{ body.many.a() }}",
        ];
        for own in [steps, room].iter().chain(&names).chain(&uses) {
            assert!(!lacks(own), "{own}");
        }
        for other in ["{{ body.nothing.more }}", "{{ body.many + 1 }}"] {
            assert!(lacks(other), "{other}");
        }
    }

    #[test]
    fn t29_templates_reach_nothing_and_come_to_an_end() {
        let many: Vec<u32> = (0..1000).collect();
        let context = || context! { body => context! { n => 1_000_000_000, s => "x", many => many.clone() } };
        for bad in [
            "{% include \"/etc/passwd\" %}",
            "{% extends \"x\" %}",
            "{% import \"x\" as x %}",
            "{% macro a() %}{% endmacro %}",
            "{{ nobody() }}",
            "{{ range(body.n) }}",
            "{{ body.s | center(body.n) }}",
            "{{ \"%1000000000d\" | format(1) }}",
            "{{ body.s * body.n }}",
            "{{ body.many * body.n }}",
            "{% for a in body.many %}{% for b in body.many %}{% for c in body.many %}{% endfor %}{% endfor %}{% endfor %}",
            "{% for a in body.many %}xxxxxxxxxx{% endfor %}",
            "{{ body.nothing.more }}",
        ] {
            let begun = std::time::Instant::now();
            assert!(rendered(bad, "text/plain", context()).is_err(), "{bad}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{bad}");
        }
    }
}
