//! `body` of a route's `request` or `response`.

use super::headers::Message;
use super::{files, values};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    BodyEdit, BodyForm, BodyMade, JsonEdit, JsonTemplate, PathMatch, Pointer, WrongBody,
};
use crate::config::page;
use crate::config::raw::{self, Value};
use crate::config::scalar::{choice, number, within};
use crate::config::units;

/// Most edits of one body.
const MOST_EDITS: usize = 64;
/// Longest template of a whole body, in bytes.
const MOST_TEMPLATE: usize = 64 << 10;
const FORMS: [(&str, BodyForm); 2] = [("json", BodyForm::Json), ("form", BodyForm::Form)];
const WRONG: [(&str, WrongBody); 2] = [("refuse", WrongBody::Refuse), ("pass", WrongBody::Pass)];

pub(super) fn body(
    walk: &mut Walk,
    table: &mut Table<'_>,
    message: Message,
    path: Option<&PathMatch>,
) -> Option<BodyEdit> {
    let field = table.get(walk, "body")?;
    walk.table(&field, |walk, table| {
        let from = table.value_or(walk, "from", BodyForm::Json, choice(&FORMS));
        let to = table.value(walk, "to", choice(&FORMS));
        let items = table.list(walk, "json");
        if items.len() > MOST_EDITS {
            walk.fault(&table.field, Wrong::new(format!("more than {MOST_EDITS} edits")));
        }
        let edits: Vec<JsonEdit> = items
            .iter()
            .filter_map(|item| walk.table(item, |walk, table| edit(walk, table, path)).flatten())
            .collect();
        let content_type = table.value(walk, "content_type", content_type);
        let page = table
            .get(walk, "template")
            .and_then(|field| template(walk, &field));
        if table.has("content_type") && !table.has("template") {
            walk.fault(
                &table.field,
                Wrong::new("content_type is that of a template, and there is none"),
            );
        }
        if table.has("template") && table.has("to") {
            walk.fault(
                &table.field,
                Wrong::new("a body becomes a form or what a template makes, not both"),
            );
        }
        if items.is_empty() && !table.has("template") && !table.has("to") && from == BodyForm::Json {
            let wrong = Wrong::new("nothing is changed in the body");
            walk.fault(
                &table.field,
                wrong.hint("json: [{remove: /a}], from: form, or template: \"...\""),
            );
        }
        let wrong = match message {
            Message::Request => WrongBody::Refuse,
            Message::Response => table.value_or(walk, "wrong", WrongBody::Refuse, choice(&WRONG)),
        };
        let size = within(1..=64 << 20, units::size, units::show_size);
        BodyEdit {
            from,
            edits,
            to: match (page, to) {
                (Some(source), _) => BodyMade::Page {
                    source,
                    content_type: content_type.unwrap_or_else(|| "application/json".to_owned()),
                },
                (None, Some(BodyForm::Form)) => BodyMade::Form,
                (None, _) => BodyMade::Json,
            },
            max_bytes: table.value_or(walk, "max_bytes", defaults::BODY_EDIT_BYTES, size),
            max_depth: table.value_or(walk, "max_depth", defaults::JSON_DEPTH, number(1..=100)),
            wrong,
        }
    })
}

/// `{set: /a, value: ...}`, `{remove: /a}`, `{rename: /a, to: b}` or `{move: /a, to: /b}`.
fn edit(walk: &mut Walk, table: &mut Table<'_>, path: Option<&PathMatch>) -> Option<JsonEdit> {
    let set = table.value(walk, "set", pointer);
    let remove = table.value(walk, "remove", pointer);
    let rename = table.value(walk, "rename", pointer);
    let moved = table.value(walk, "move", pointer);
    let kinds = ["set", "remove", "rename", "move"];
    if kinds.iter().filter(|kind| table.has(kind)).count() != 1 {
        let wrong = Wrong::new("an edit is exactly one of set, remove, rename and move");
        walk.fault(
            &table.field,
            wrong.hint("such as {set: /user/id, value: \"{claim.sub}\"}"),
        );
    }
    if table.has("set") {
        let value = table.any(walk, "value");
        if !table.has("value") {
            let wrong = Wrong::new("key \"value\" is missing");
            walk.fault(
                &table.field,
                wrong.hint("any value; texts may name facts, such as \"{claim.sub}\""),
            );
        }
        let value = value.and_then(|field| json(walk, &field, path));
        return Some(JsonEdit::Set {
            at: set?,
            value: value?,
        });
    }
    if table.has("rename") {
        let to = table.require(walk, "to", "the new name of the member");
        let to = to.and_then(|field| walk.value(&field, |text| Ok(text.to_owned())));
        return Some(JsonEdit::Rename { at: rename?, to: to? });
    }
    if table.has("move") {
        let to = table.require(walk, "to", "where to, such as /a/b");
        let to = to.and_then(|field| walk.value(&field, pointer));
        return Some(JsonEdit::Move {
            from: moved?,
            to: to?,
        });
    }
    remove.map(JsonEdit::Remove)
}

fn pointer(text: &str) -> Result<Pointer, Wrong> {
    Pointer::read(text)
        .filter(|pointer| pointer.0.len() <= 32)
        .ok_or_else(|| {
            let wrong = Wrong::new(format!("{} is not a JSON Pointer", quote(text)));
            wrong.hint("such as /user/name; ~1 stands for a slash in a name, ~0 for ~ (RFC 6901)")
        })
}

fn json(walk: &mut Walk, field: &Field<'_>, path: Option<&PathMatch>) -> Option<JsonTemplate> {
    match &field.node.value {
        Value::Null => Some(JsonTemplate::Literal("null".to_owned())),
        Value::Text(text) => match raw::scalar(field.node) {
            Some(value) if !value.is_string() => Some(JsonTemplate::Literal(value.to_string())),
            _ => {
                let template = walk.value(field, |_| values::template(text, path))?;
                Some(match values::plain(&template) {
                    Some(plain) => JsonTemplate::Literal(serde_json::Value::from(plain).to_string()),
                    None => JsonTemplate::Text(template),
                })
            }
        },
        Value::List(_) => {
            let items = walk.list(field);
            let items = items.iter().map(|item| json(walk, item, path));
            Some(JsonTemplate::List(items.collect::<Option<_>>()?))
        }
        Value::Map(_) => {
            let entries = walk.entries(field);
            let entries = entries
                .iter()
                .map(|(key, field)| Some((key.text.to_owned(), json(walk, field, path)?)));
            Some(JsonTemplate::Map(entries.collect::<Option<_>>()?))
        }
    }
}

fn content_type(text: &str) -> Result<String, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a media type", quote(text)));
    let essence = text.split(';').next().unwrap_or_default().trim();
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match essence.split_once('/') {
        Some((kind, sub)) if token(kind) && token(sub) && http::HeaderValue::from_str(text).is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err(refuse().hint("such as application/xml")),
    }
}

/// Text in place, or `{file: ...}`.
fn template(walk: &mut Walk, field: &Field<'_>) -> Option<String> {
    let source = if let Value::Map(_) = field.node.value {
        walk.table(field, |walk, table| {
            let file = table.require(walk, "file", "the template's file")?;
            let path = files::named(walk, &file)?;
            walk.files.push(path.display().to_string());
            walk.value(&file, |_| files::read_text(&path, MOST_TEMPLATE))
        })??
    } else {
        walk.value(field, |text| {
            if text.len() > MOST_TEMPLATE {
                return Err(Wrong::new(format!(
                    "the template is larger than {MOST_TEMPLATE} bytes"
                )));
            }
            Ok(text.to_owned())
        })?
    };
    match page::faults(&source) {
        Err(error) => {
            let line = error
                .line()
                .map_or_else(String::new, |line| format!(" (line {line} of it)"));
            let wrong = Wrong::new(format!("the template is not well formed{line}: {error}"));
            walk.fault(
                field,
                wrong.hint("Jinja without include, extends, import and macro"),
            );
            return None;
        }
        Ok(faults) => {
            for fault in &faults {
                let wrong = Wrong::new(format!("in the template {fault}"));
                walk.fault(
                    field,
                    wrong.hint("what templates have is told beside this setting in config/gateway.yaml"),
                );
            }
            if !faults.is_empty() {
                return None;
            }
        }
    }
    Some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        let read = |text| Pointer::read(text).map(|pointer| pointer.0);
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("/"), Some(vec![String::new()]));
        assert_eq!(
            read("/a~1b/~0c/0"),
            Some(vec!["a/b".into(), "~c".into(), "0".into()])
        );
        assert_eq!(read("/~01"), Some(vec!["~1".into()]), "decoded once");
        for bad in ["a", "#/a", "/~", "/~2", "/a~"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_template_that_uses_what_there_is_not_is_no_configuration() {
        let faults = |template: &str| {
            let text = format!(
                "listen: [{{address: 127.0.0.1:1}}]\nxdp: {{mode: none}}\nroutes:\n  - match: {{path: /}}\n    request: {{body: {{template: \"{template}\"}}}}\n    redirect: {{to: /a}}\n"
            );
            let parsed = crate::config::Config::parse(&text, "g.yaml", std::path::Path::new("/"));
            parsed.err().map(|faults| faults.to_string()).unwrap_or_default()
        };
        for (template, told) in [
            (
                "{% for i in range(3) %}x{% endfor %}",
                "there is no function \"range\" (line 1 of it)",
            ),
            ("{{ body.s|indent }}", "there is no filter \"indent\""),
            ("{{ body.s is odd_one }}", "there is no test \"odd_one\""),
            ("{% if %}", "not well formed"),
        ] {
            let faults = faults(template);
            assert!(faults.contains(told) && faults.contains("g.yaml:5"), "{faults}");
        }
        assert!(!faults("{{ body.s|upper }}").contains("the template"));
    }
}
