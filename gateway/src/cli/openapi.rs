//! `gateway openapi import`: from a document to routes that hold requests against it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use http::HeaderMap;

use super::args::OpenapiCommand;
use super::render::clean;
use super::{Exit, Failed, Result, print, print_json};
use crate::config::model::Paths;
use crate::config::openapi::{Contract, In, Operation, Scheme};
use crate::config::{Config, Fault};
use crate::http::path;
use crate::http::router::{Ask, Router};

/// No key has this hash that anybody could find: a place for the operator's own.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub fn run(command: &OpenapiCommand, json: bool) -> Result<Exit> {
    let OpenapiCommand::Import { file, out, upstream } = command;
    let contract = Contract::load(file)
        .map_err(|fault| Failed::new(Exit::BadInput, format!("{}: {fault}", file.display())))?;
    let named = named(file, out.as_deref());
    let taken = routes(&contract, &named, upstream, &directory(out.as_deref()))
        .map_err(|reason| Failed::new(Exit::BadInput, format!("{reason}\nnothing was written")))?;
    for refusal in &taken.refused {
        let _ = writeln!(std::io::stderr(), "gateway: not taken: {}", clean(refusal));
    }
    if taken.count == 0 && !taken.refused.is_empty() {
        return Err(Failed::new(
            Exit::BadInput,
            "no operation of the document could be taken; nothing was written",
        ));
    }
    if let Some(out) = out {
        std::fs::write(out, &taken.text)
            .map_err(|error| Failed::new(Exit::Failed, format!("{}: {error}", out.display())))?;
    }
    if json {
        let text = out.is_none().then_some(&taken.text);
        print_json(&serde_json::json!({"taken": taken.count, "refused": taken.refused, "text": text}))?;
    } else if out.is_none() {
        print(&taken.text)?;
    }
    Ok(if taken.refused.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Where a configuration in the place of `out` would look for files.
fn directory(out: Option<&Path>) -> PathBuf {
    let parent = out
        .and_then(Path::parent)
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// The document's name as a configuration in the place of `out` would give it.
fn named(file: &Path, out: Option<&Path>) -> PathBuf {
    let whole = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let beside = out.and_then(|_| directory(out).canonicalize().ok());
    match beside.and_then(|directory| whole.strip_prefix(directory).ok().map(Path::to_owned)) {
        Some(relative) => relative,
        None => whole,
    }
}

/// What an import makes of a document.
#[derive(Debug)]
pub struct Taken {
    /// Routes and their upstream, in the form of a configuration.
    pub text: String,
    /// Operations that have a route.
    pub count: usize,
    /// Those that have none, each with the reason.
    pub refused: Vec<String>,
}

/// What the routes need to be a whole configuration. Behind them, so that their lines stay what they are.
const REST: &str = "listen: [{address: 127.0.0.1:1}]\nxdp: {mode: none}\n";
/// Stands for the file in what a fault says of another line.
const HERE: &str = "line";
/// How often what the check refuses is taken out, before that is given up.
const MOST_ROUNDS: usize = 100;

/// Routes for the operations of a document, each of which is checked: the configuration takes it, and requests get to it.
///
/// # Errors
/// What is wrong with all of it, whatever the operations are.
pub fn routes(
    contract: &Contract,
    file: &Path,
    upstream: &str,
    directory: &Path,
) -> std::result::Result<Taken, String> {
    let head = head(contract, upstream);
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for operation in &contract.operations {
        *names.entry(name(operation)).or_default() += 1;
    }
    // The text of each, or why there is none.
    let mut made: Vec<std::result::Result<String, String>> = contract
        .operations
        .iter()
        .map(|operation| {
            odd(operation)?;
            let alone = names.get(&name(operation)).is_none_or(|count| *count == 1);
            Ok(route(contract, operation, file, upstream, alone))
        })
        .collect();
    for _ in 0..MOST_ROUNDS {
        let (text, lines) = whole(contract, &head, &made);
        let of_line = |line: usize| lines.iter().rfind(|(_, first)| *first <= line).map(|(at, _)| *at);
        let refused: Vec<(Option<usize>, String)> =
            match Config::parse(&format!("{text}{REST}"), HERE, directory) {
                Ok((config, _)) => {
                    let unmet = unmet(contract, &config, &lines);
                    if unmet.is_empty() {
                        let told = contract.operations.iter().zip(&made);
                        let refused = told.filter_map(|(operation, made)| {
                            Some(format!("{}: {}", shown(operation), made.as_ref().err()?))
                        });
                        return Ok(Taken {
                            text,
                            count: lines.len(),
                            refused: refused.collect(),
                        });
                    }
                    unmet.into_iter().map(|(at, why)| (Some(at), why)).collect()
                }
                Err(faults) => {
                    let why = |fault: &Fault| {
                        let hint = fault.hint.iter().map(|hint| format!("; {hint}"));
                        let said = fault.message.clone() + &hint.collect::<String>();
                        name_lines(&said, |line| {
                            Some(shown(contract.operations.get(of_line(line)?)?))
                        })
                    };
                    let at = |fault: &Fault| of_line(fault.line as usize);
                    faults
                        .errors
                        .iter()
                        .map(|fault| (at(fault), why(fault)))
                        .collect()
                }
            };
        for (at, why) in refused {
            let place = at.and_then(|at| made.get_mut(at)).ok_or(&why)?;
            if place.is_ok() {
                *place = Err(why);
            }
        }
    }
    Err("too many operations can not be taken".to_owned())
}

/// Method and path.
fn shown(operation: &Operation) -> String {
    format!("{} {}", operation.method, operation.path)
}

/// Paths that say another thing than they seem to.
fn odd(operation: &Operation) -> std::result::Result<(), String> {
    let path = &operation.path;
    let escape = |(at, _): (usize, &str)| {
        let digits = path.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if operation.method == "TRACE" {
        return Err("the gateway serves no TRACE".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err("a route matches the path alone, not the query".to_owned());
    }
    if path.match_indices('%').any(escape) {
        return Err("write the character itself, not its %-escape".to_owned());
    }
    Ok(())
}

/// Operations whose requests would not get to their routes, or be of others there.
fn unmet(contract: &Contract, config: &Config, lines: &[(usize, usize)]) -> Vec<(usize, String)> {
    let mut router = Router::default();
    for (index, route) in config.routes.iter().enumerate() {
        router.insert(&route.host, &route.path, &route.when, index);
    }
    let why = |index: usize, operation: &Operation| {
        let (below, segments) = operation.template.example();
        let path = format!("{}{below}", contract.base);
        let Ok(canonical) = path::canonical(&path, Paths::default()) else {
            return Some("the gateway refuses every request for this path".to_owned());
        };
        let ask = Ask {
            method: &operation.method,
            headers: &HeaderMap::new(),
            query: None,
            preflight: false,
        };
        match router.find("host", &canonical, &ask) {
            None => return Some(format!("no request would get there: it would be for {canonical}")),
            Some(found) if *found != index => {
                let other = lines.get(*found).and_then(|(at, _)| contract.operations.get(*at));
                let other = other.map(shown).unwrap_or_default();
                return Some(format!("its requests would go to {other}"));
            }
            Some(_) => {}
        }
        let rule = config.routes.get(index)?.validate.as_ref()?;
        let (operations, _) = contract.find(&segments).unwrap_or_default();
        if rule.operation.is_some() || operations.iter().any(|other| std::ptr::eq(*other, operation)) {
            return None;
        }
        let other = operations
            .first()
            .map(|other| other.path.as_str())
            .unwrap_or_default();
        Some(format!(
            "its requests are of {other} in the document; give it the same names, or an operationId"
        ))
    };
    let all = lines.iter().enumerate();
    all.filter_map(|(index, (at, _))| Some((*at, why(index, contract.operations.get(*at)?)?)))
        .collect()
}

/// A message with the names of operations in the place of lines.
fn name_lines(said: &str, name: impl Fn(usize) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = said;
    let mark = format!("{HERE}:");
    while let Some((before, after)) = rest.split_once(&mark) {
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (line, behind) = after.split_at(digits);
        out += before;
        out += &line
            .parse()
            .ok()
            .and_then(&name)
            .unwrap_or_else(|| format!("{mark}{line}"));
        rest = behind;
    }
    out + rest
}

/// All of it, and for each route the number of its operation and its first line.
fn whole(
    contract: &Contract,
    head: &str,
    made: &[std::result::Result<String, String>],
) -> (String, Vec<(usize, usize)>) {
    let mut text = head.to_owned();
    if made.iter().all(std::result::Result::is_err) {
        text = text.replace("\nroutes:\n", "\nroutes: []\n");
    }
    let mut line = text.lines().count() + 1;
    let mut lines = Vec::new();
    for (at, (operation, made)) in contract.operations.iter().zip(made).enumerate() {
        match made {
            Ok(route) => {
                lines.push((at, line));
                text += route;
                line += route.lines().count();
            }
            Err(why) => {
                let _ = writeln!(text, "  # {}: {}", comment(&shown(operation)), comment(why));
                line += 1;
            }
        }
    }
    (text, lines)
}

/// What stands above the routes.
fn head(contract: &Contract, upstream: &str) -> String {
    let mut out = String::new();
    let server = contract.server.as_deref();
    let _ = writeln!(
        out,
        "# Routes of an OpenAPI document, made by `gateway openapi import`: add listen and what else there is to say."
    );
    let _ = writeln!(out, "upstreams:\n  {}:", quoted(upstream));
    let note = if server.is_some() {
        ""
    } else {
        "  # the document names no server"
    };
    let _ = writeln!(
        out,
        "    endpoints: [{{url: {}}}]{note}\nroutes:",
        quoted(server.unwrap_or("http://127.0.0.1:8080"))
    );
    out
}

/// The route of an operation; `alone` if no other has its name.
fn route(contract: &Contract, operation: &Operation, file: &Path, upstream: &str, alone: bool) -> String {
    let mut out = String::new();
    let mut name = name(operation);
    if !alone {
        name = plain(&format!("{}-{}{}", name, operation.method, operation.path));
    }
    let path = match operation.template.pattern() {
        Some(pattern) => quoted(&format!("{}{pattern}", contract.base)),
        None => format!(
            "{{regex: {}}}",
            quoted(&format!(
                "{}{}",
                regex_of(&contract.base),
                operation.template.regex()
            ))
        ),
    };
    let path = if path == "\"\"" { "\"/\"".to_owned() } else { path };
    let _ = writeln!(out, "  - name: {}", quoted(&name));
    let _ = writeln!(
        out,
        "    match: {{path: {path}, methods: [{}]}}",
        operation.method
    );
    let id = match &operation.id {
        Some(id) if alone => format!(", operation: {}", quoted(id)),
        _ => String::new(),
    };
    let base = if contract.base.is_empty() {
        "/"
    } else {
        &contract.base
    };
    let _ = writeln!(
        out,
        "    validate: {{openapi: {{file: {}{id}, base: {}}}}}",
        quoted(&file.to_string_lossy()),
        quoted(base)
    );
    security(&mut out, contract, operation);
    let _ = writeln!(out, "    upstream: {}", quoted(upstream));
    out
}

/// What a document asks of callers, as the gateway asks for it. What it can not ask for lets nobody in until the operator has
/// decided.
fn security(out: &mut String, contract: &Contract, operation: &Operation) {
    if operation.security.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "    # The document asks for: {}",
        comment(&operation.security.join(" or "))
    );
    let known = |name: &String| {
        contract
            .schemes
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, scheme)| scheme)
    };
    let first = operation.security.iter().find_map(known);
    let keys = format!("keys: [{{name: nobody, sha256: \"{NOBODY}\"}}]");
    let line = match first {
        Some(Scheme::Key { at, name }) => {
            let place = match at {
                In::Query => "query",
                In::Cookie => "cookie",
                In::Header | In::Path => "header",
            };
            format!("api_key: {{{place}: {}, {keys}}}", quoted(name))
        }
        Some(Scheme::Basic) => "basic: {users: []}".to_owned(),
        Some(Scheme::Bearer) => {
            let audience = contract.server.as_deref().unwrap_or("the-audience");
            format!(
                "jwt: {{issuer: \"https://issuer.example.com\", audience: {}}}",
                quoted(audience)
            )
        }
        Some(Scheme::OpenId(url)) => {
            let issuer = url.split("/.well-known/").next().unwrap_or_default();
            let issuer = if issuer.starts_with("https://") {
                issuer
            } else {
                "https://issuer.example.com"
            };
            format!("jwt: {{issuer: {}, audience: \"the-audience\"}}", quoted(issuer))
        }
        _ => {
            let _ = writeln!(
                out,
                "    # The gateway can not tell how that is checked; until you say so nobody gets in."
            );
            format!("api_key: {{{keys}}}")
        }
    };
    let _ = writeln!(out, "    auth: {{{line}}}");
}

fn name(operation: &Operation) -> String {
    let own = operation.id.as_deref().map(plain);
    own.unwrap_or_else(|| plain(&format!("{}{}", operation.method, operation.path)))
}

/// As a route's name may be.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '`');
    let name: String = text
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(128)
        .collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

fn regex_of(text: &str) -> String {
    regex::escape(text)
}

/// A YAML scalar; JSON strings are that.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// What may stand in a comment: one line.
fn comment(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
