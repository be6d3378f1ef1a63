//! Holding requests and answers against what a document says of the operation they are of.
//!
//! A text is read for what its schema takes before it is judged, as a parameter has no type of its own. What is told to the client
//! names the place and the rule, never the value.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::kind::{Kind, is_form, is_json};
use super::strict;
use crate::config::model::Validate;
use crate::config::openapi::document::content_for;
use crate::config::openapi::{Content, In, Kinds, Operation, Parameter, Style, Validator};
use crate::http::facts::Facts;
use crate::http::query::decode;
use crate::http::reject::{At, Problem, Reject};

/// Why a request is not what the document says.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) reject: Reject,
    pub(super) problem: Option<Problem>,
    pub(super) allow: Option<HeaderValue>,
}

impl From<Reject> for Wrong {
    fn from(reject: Reject) -> Self {
        Self {
            reject,
            problem: None,
            allow: None,
        }
    }
}

/// What is to be done about a body.
#[derive(Debug)]
pub(super) enum Todo<'c> {
    Nothing,
    Json(&'c Validator),
    Form(&'c Content),
}

/// Judges all of a request but its body; says which operation it is of, by its number.
pub(super) fn head<'c>(
    rule: &'c Validate,
    facts: &Facts<'_>,
    has_body: bool,
) -> Result<(usize, Todo<'c>), Wrong> {
    let contract = &*rule.contract;
    let path = facts.uri.path();
    let below = path
        .strip_prefix(rule.base.as_str())
        .filter(|rest| rest.starts_with('/'));
    let segments: Vec<String> = below
        .and_then(|below| below.split('/').skip(1).map(text).collect::<Option<_>>())
        .ok_or(Reject::NoRoute)?;
    let number = |operation: &Operation| {
        contract
            .operations
            .iter()
            .position(|other| std::ptr::eq(other, operation))
    };
    let (operation, at, found) = if let Some(at) = rule.operation {
        let operation = contract.operations.get(at).ok_or(Reject::Internal)?;
        let found = operation.template.of(&segments).ok_or(Reject::NoRoute)?;
        if !serves(operation, facts.method) {
            return Err(not_allowed(&[operation]));
        }
        (operation, at, found)
    } else {
        let (operations, found) = contract.find(&segments).ok_or(Reject::NoRoute)?;
        let exact = operations
            .iter()
            .find(|operation| operation.method == *facts.method);
        let operation = exact.or_else(|| {
            operations
                .iter()
                .find(|operation| serves(operation, facts.method))
        });
        let operation = *operation.ok_or_else(|| not_allowed(&operations))?;
        (operation, number(operation).ok_or(Reject::Internal)?, found)
    };
    let mut problem = Problem::default();
    let query = Pairs::of(facts.uri.query().unwrap_or_default());
    for parameter in &operation.parameters {
        let read = match parameter.at {
            In::Path => found
                .iter()
                .find(|(name, _)| *name == parameter.name)
                .map(|(_, value)| Raw::One(value.clone())),
            In::Query => from_query(parameter, &query),
            In::Header => from_header(parameter, facts.headers),
            In::Cookie => from_cookie(parameter, facts.headers),
        };
        judge(parameter, read, &mut problem);
    }
    if rule.refuse_unknown_query {
        let mut told = BTreeSet::new();
        for (name, _) in &query.0 {
            if !operation
                .parameters
                .iter()
                .any(|parameter| knows(parameter, name))
                && told.insert(name)
            {
                problem.add(At::Query(name), "is not known");
            }
        }
    }
    let todo = body_of(operation, facts.headers, has_body, &mut problem)?;
    if !problem.is_empty() {
        return Err(Wrong {
            reject: Reject::RequestInvalid,
            problem: Some(problem),
            allow: None,
        });
    }
    Ok((at, todo))
}

/// Judges a body.
pub(super) fn body(todo: &Todo<'_>, bytes: &[u8], max_depth: u32) -> Result<(), Wrong> {
    let mut problem = Problem::default();
    match todo {
        Todo::Nothing => {}
        Todo::Json(validator) => {
            let value = strict::parse(bytes, max_depth).map_err(|wrong| {
                let mut problem = Problem::default();
                problem.add(At::Body(""), wrong.detail());
                Wrong {
                    reject: Reject::BadBody,
                    problem: Some(problem),
                    allow: None,
                }
            })?;
            if !validator.takes(&value) {
                validator.faults(&value, |at, why| problem.add(At::Body(at), why));
            }
        }
        Todo::Form(content) => {
            let form = std::str::from_utf8(bytes).map_err(|_| Reject::BadBody)?;
            let pairs = Pairs::of(form);
            let value = members(&content.kinds, &pairs);
            if let (Some(validator), Some(value)) = (&content.schema, &value)
                && !validator.takes(value)
            {
                validator.faults(value, |at, why| problem.add(At::Body(at), why));
            }
            if value.is_none() {
                problem.add(At::Body(""), "is not text in UTF-8");
            }
        }
    }
    if problem.is_empty() {
        return Ok(());
    }
    Err(Wrong {
        reject: Reject::RequestInvalid,
        problem: Some(problem),
        allow: None,
    })
}

/// Judges the header of an answer; what its body is to be held against. `Err` says what is wrong, for the log.
pub(super) fn answer<'c>(
    operation: &'c Operation,
    status: StatusCode,
    headers: &HeaderMap,
    has_body: bool,
) -> Result<Option<&'c Validator>, String> {
    let described = operation
        .response(status)
        .ok_or_else(|| format!("status {status} is not described"))?;
    let mut problem = Problem::default();
    for line in &described.headers {
        judge(line, from_header(line, headers), &mut problem);
        if !problem.is_empty() {
            return Err(format!(
                "header {} is missing, or is not what is described",
                line.name
            ));
        }
    }
    if !has_body || described.content.is_empty() {
        return Ok(None);
    }
    let kind = Kind::of(headers);
    let Some(essence) = kind.essence() else {
        return Err("of what type the body is can not be told".to_owned());
    };
    let content = content_for(&described.content, essence)
        .ok_or_else(|| format!("type {essence:?} is not described"))?;
    Ok(content.schema.as_ref().filter(|_| is_json(essence)))
}

/// Whether any answer of an operation is JSON whose schema is known.
pub(super) fn judges_answers(operation: &Operation) -> bool {
    let contents = operation
        .responses
        .iter()
        .flat_map(|(_, response)| &response.content);
    contents
        .filter(|content| content.schema.is_some())
        .any(|content| is_json(&content.range) || content.range.ends_with("/*"))
}

/// Judges the body of an answer.
pub(super) fn answer_body(validator: &Validator, bytes: &[u8], max_depth: u32) -> Result<(), String> {
    let value = strict::parse(bytes, max_depth).map_err(|wrong| format!("the body {}", wrong.detail()))?;
    if validator.takes(&value) {
        return Ok(());
    }
    let mut first = None;
    validator.faults(&value, |at, why| {
        first.get_or_insert_with(|| format!("the body at {at:?}: {why}"));
    });
    Err(first.unwrap_or_default())
}

fn serves(operation: &Operation, method: &Method) -> bool {
    // HEAD asks for the same as GET (RFC 9110, 9.3.2).
    operation.method == *method || operation.method == Method::GET && *method == Method::HEAD
}

fn not_allowed(operations: &[&Operation]) -> Wrong {
    let methods: Vec<&str> = operations
        .iter()
        .map(|operation| operation.method.as_str())
        .collect();
    Wrong {
        reject: Reject::MethodNotAllowed,
        problem: None,
        allow: HeaderValue::try_from(methods.join(", ")).ok(),
    }
}

fn body_of<'c>(
    operation: &'c Operation,
    headers: &HeaderMap,
    has_body: bool,
    problem: &mut Problem,
) -> Result<Todo<'c>, Wrong> {
    let Some(described) = &operation.body else {
        if has_body {
            problem.add(At::Body(""), "is not described: there may be none");
        }
        return Ok(Todo::Nothing);
    };
    if !has_body {
        if described.required {
            problem.add(At::Body(""), "is missing");
        }
        return Ok(Todo::Nothing);
    }
    if described.content.is_empty() {
        return Ok(Todo::Nothing);
    }
    // Not even where any type will do: it would be passed on unseen.
    let kind = Kind::of(headers);
    let Some(essence) = kind.essence() else {
        return Err(Reject::UnsupportedMediaType.into());
    };
    let content = content_for(&described.content, essence).ok_or(Reject::UnsupportedMediaType)?;
    Ok(match &content.schema {
        Some(validator) if is_json(essence) => Todo::Json(validator),
        Some(_) if is_form(essence) => Todo::Form(content),
        _ => Todo::Nothing,
    })
}

/// A parameter as it was sent.
enum Raw {
    One(String),
    /// Already cut.
    List(Vec<String>),
    Object(Vec<(String, String)>),
    /// It can not be read.
    Broken(&'static str),
}

fn judge(parameter: &Parameter, raw: Option<Raw>, problem: &mut Problem) {
    let at = match parameter.at {
        In::Path => At::Path(&parameter.name),
        In::Query => At::Query(&parameter.name),
        In::Header => At::Header(&parameter.name),
        In::Cookie => At::Cookie(&parameter.name),
    };
    let Some(raw) = raw else {
        if parameter.required {
            problem.add(at, "is missing");
        }
        return;
    };
    let candidates = match values(parameter, raw) {
        Ok(candidates) => candidates,
        Err(why) => return problem.add(at, why),
    };
    let Some(validator) = &parameter.schema else {
        return;
    };
    if !candidates.iter().any(|value| validator.takes(value))
        && let Some(value) = candidates.first()
    {
        validator.faults(value, |_, why| problem.add(at, why));
    }
}

/// What a parameter may stand for, the likeliest first.
fn values(parameter: &Parameter, raw: Raw) -> Result<Vec<Value>, &'static str> {
    let kinds = &parameter.kinds;
    let text = match raw {
        Raw::Broken(why) => return Err(why),
        Raw::List(items) => return Ok(vec![list(kinds, items)]),
        Raw::Object(members) => return Ok(vec![object(kinds, members)]),
        Raw::One(text) => text,
    };
    let text = match parameter.style {
        Style::Json => {
            return strict::parse(text.as_bytes(), 64)
                .map(|value| vec![value])
                .map_err(|_| "is not JSON");
        }
        Style::Label => text
            .strip_prefix('.')
            .ok_or("does not begin with a dot")?
            .to_owned(),
        Style::Matrix => {
            let front = format!(";{}=", parameter.name);
            text.strip_prefix(&front)
                .ok_or("is not written as ;name=value")?
                .to_owned()
        }
        _ => text,
    };
    let separator = match (parameter.style, parameter.explode) {
        (Style::Label, true) => '.',
        (Style::Space, _) => ' ',
        (Style::Pipe, _) => '|',
        _ => ',',
    };
    if kinds.list.is_some() {
        let items = text.split(separator).map(|item| item.trim().to_owned());
        return Ok(vec![list(kinds, items.collect())]);
    }
    if kinds.object.is_some() {
        let parts: Vec<&str> = text.split(separator).collect();
        let members: Option<Vec<(String, String)>> = if parameter.explode {
            let pair = |part: &&str| part.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            parts.iter().map(pair).collect()
        } else {
            let pair = |pair: &[&str]| match pair {
                [name, value] => Some(((*name).to_owned(), (*value).to_owned())),
                _ => None,
            };
            parts.chunks(2).map(pair).collect()
        };
        return Ok(vec![object(kinds, members.ok_or("is not written as an object")?)]);
    }
    Ok(scalars(kinds, text))
}

fn list(kinds: &Kinds, items: Vec<String>) -> Value {
    let own = kinds.list.as_deref().cloned().unwrap_or_default();
    items
        .into_iter()
        .filter_map(|item| scalars(&own, item).into_iter().next())
        .collect()
}

fn object(kinds: &Kinds, members: Vec<(String, String)>) -> Value {
    let known = kinds.object.as_deref().unwrap_or_default();
    let mut out = Map::new();
    for (name, text) in members {
        let own = known
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, kinds)| kinds.clone())
            .unwrap_or_default();
        if let Some(value) = scalars(&own, text).into_iter().next() {
            out.insert(name, value);
        }
    }
    Value::Object(out)
}

/// What a text may stand for, the likeliest first; never none.
fn scalars(kinds: &Kinds, text: String) -> Vec<Value> {
    // Where nothing is said a text may stand for anything.
    let any = *kinds == Kinds::default();
    let mut out = Vec::new();
    // A number is all of the text: no blanks around it.
    if (kinds.number || any)
        && !text.contains(|c: char| c.is_ascii_whitespace())
        && let Ok(Value::Number(number)) = serde_json::from_str::<Value>(&text)
    {
        out.push(Value::Number(number));
    }
    if kinds.truth || any {
        match text.as_str() {
            "true" => out.push(Value::Bool(true)),
            "false" => out.push(Value::Bool(false)),
            _ => {}
        }
    }
    if kinds.null && (text.is_empty() || text == "null") {
        out.push(Value::Null);
    }
    if any || kinds.text || out.is_empty() {
        out.push(Value::String(text));
    }
    if any {
        out.reverse();
    }
    out
}

/// Pairs of a query or form: names decoded, values as they were sent.
struct Pairs<'q>(Vec<(String, &'q str)>);

impl<'q> Pairs<'q> {
    fn of(text: &'q str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (String::from_utf8_lossy(&decode(name)).into_owned(), value)
        });
        Self(pairs.collect())
    }

    fn named<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'q str> + 'p {
        self.0
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| *value)
    }
}

const NO_TEXT: Raw = Raw::Broken("is not text in UTF-8");

fn from_query(parameter: &Parameter, query: &Pairs<'_>) -> Option<Raw> {
    let all = |values: Vec<&str>| values.into_iter().map(form_text).collect::<Option<Vec<String>>>();
    match (parameter.style, &parameter.kinds.object) {
        (Style::Deep, _) => {
            let mut members = Vec::new();
            for (name, value) in &query.0 {
                let own = name
                    .strip_prefix(parameter.name.as_str())
                    .and_then(|rest| rest.strip_prefix('['));
                if let Some(member) = own.and_then(|rest| rest.strip_suffix(']')) {
                    let Some(value) = form_text(value) else {
                        return Some(NO_TEXT);
                    };
                    members.push((member.to_owned(), value));
                }
            }
            return (!members.is_empty()).then_some(Raw::Object(members));
        }
        (Style::Form, Some(known)) if parameter.explode => {
            let mut members = Vec::new();
            for (name, _) in known {
                for value in query.named(name) {
                    let Some(value) = form_text(value) else {
                        return Some(NO_TEXT);
                    };
                    members.push((name.clone(), value));
                }
            }
            return (!members.is_empty()).then_some(Raw::Object(members));
        }
        _ => {}
    }
    let values: Vec<&str> = query.named(&parameter.name).collect();
    let is_list = parameter.kinds.list.is_some();
    match values.as_slice() {
        [] => None,
        _ if is_list && parameter.explode && parameter.style != Style::Json => {
            Some(all(values).map_or(NO_TEXT, Raw::List))
        }
        // Cut before it is decoded, so that a comma within an item can be sent (RFC 6570, 3.2.8).
        [one] if is_list && parameter.style == Style::Form => {
            Some(all(one.split(',').collect()).map_or(NO_TEXT, Raw::List))
        }
        [one] => Some(form_text(one).map_or(NO_TEXT, Raw::One)),
        _ => Some(Raw::Broken("is there several times")),
    }
}

fn from_header(parameter: &Parameter, headers: &HeaderMap) -> Option<Raw> {
    let lines: Vec<&HeaderValue> = headers.get_all(parameter.name.as_str()).iter().collect();
    let texts: Option<Vec<&str>> = lines.iter().map(|line| line.to_str().ok()).collect();
    match texts.as_deref() {
        None => Some(Raw::Broken("is not text in ASCII")),
        Some([]) => None,
        Some([one]) => Some(Raw::One((*one).to_owned())),
        // Several lines are one with commas (RFC 9110, 5.3).
        Some(all) if parameter.kinds.list.is_some() => Some(Raw::One(all.join(","))),
        Some(_) => Some(Raw::Broken("is there several times")),
    }
}

fn from_cookie(parameter: &Parameter, headers: &HeaderMap) -> Option<Raw> {
    let lines = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut values = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == parameter.name).then_some(value)
    });
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Raw::Broken("is there several times"));
    }
    Some(text(first).map_or(NO_TEXT, Raw::One))
}

/// A form as an object of the kind that is described. `None` if it is not UTF-8.
fn members(kinds: &Kinds, pairs: &Pairs<'_>) -> Option<Value> {
    let known = kinds.object.as_deref().unwrap_or_default();
    let mut out = Map::new();
    for (name, value) in &pairs.0 {
        let own = known.iter().find(|(own, _)| own == name).map(|(_, kinds)| kinds);
        let text = form_text(value)?;
        let list = own.and_then(|kinds| kinds.list.as_deref());
        let kinds = list.or(own).cloned().unwrap_or_default();
        let value = scalars(&kinds, text).into_iter().next()?;
        match (out.get_mut(name), list) {
            (Some(Value::Array(items)), _) => items.push(value),
            (None, Some(_)) => drop(out.insert(name.clone(), Value::Array(vec![value]))),
            (Some(held), None) => {
                let first = held.take();
                *held = Value::Array(vec![first, value]);
            }
            (_, _) => drop(out.insert(name.clone(), value)),
        }
    }
    Some(Value::Object(out))
}

/// Whether a parameter may be what stands in a query under this name.
fn knows(parameter: &Parameter, name: &str) -> bool {
    if parameter.at != In::Query {
        return false;
    }
    let member = || {
        parameter
            .kinds
            .object
            .iter()
            .flatten()
            .any(|(own, _)| own == name)
    };
    match parameter.style {
        Style::Deep => name
            .strip_prefix(parameter.name.as_str())
            .is_some_and(|rest| rest.starts_with('[')),
        Style::Form if parameter.explode && parameter.kinds.object.is_some() => member(),
        _ => parameter.name == name,
    }
}

/// A part of a form, decoded: `%XX` and `+`.
fn form_text(text: &str) -> Option<String> {
    String::from_utf8(decode(text).into_owned()).ok()
}

/// A part of a path or a cookie, decoded: `%XX`, while `+` is itself.
fn text(part: &str) -> Option<String> {
    let part = if part.contains('+') {
        Cow::Owned(part.replace('+', "%2B"))
    } else {
        Cow::Borrowed(part)
    };
    form_text(&part)
}
