//! `gateway openapi import`: from a document to routes that hold requests against it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::OpenapiCommand;
use super::{Exit, Failed, Result, print};
use crate::config::openapi::{Contract, In, Operation, Scheme};

/// No key has this hash that anybody could find: a place for the operator's own.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub fn run(command: &OpenapiCommand) -> Result<Exit> {
    let OpenapiCommand::Import { file, out, upstream } = command;
    let contract = Contract::load(file)
        .map_err(|fault| Failed::new(Exit::BadInput, format!("{}: {fault}", file.display())))?;
    let named = named(file, out.as_deref());
    let text = routes(&contract, &named, upstream);
    match out {
        None => print(&text)?,
        Some(out) => std::fs::write(out, text)
            .map_err(|error| Failed::new(Exit::Failed, format!("{}: {error}", out.display())))?,
    }
    Ok(Exit::Done)
}

/// The document's name as a configuration in the place of `out` would give it.
fn named(file: &Path, out: Option<&Path>) -> PathBuf {
    let whole = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let beside = out.and_then(|out| {
        let directory = out
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        directory.canonicalize().ok()
    });
    match beside.and_then(|directory| whole.strip_prefix(directory).ok().map(Path::to_owned)) {
        Some(relative) => relative,
        None => whole,
    }
}

/// Routes and their upstream, in the form of a configuration.
pub fn routes(contract: &Contract, file: &Path, upstream: &str) -> String {
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
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for operation in &contract.operations {
        *names.entry(name(operation)).or_default() += 1;
    }
    for operation in &contract.operations {
        if matches!(operation.method.as_str(), "TRACE") {
            let _ = writeln!(
                out,
                "  # {} {}: the gateway serves no TRACE",
                operation.method,
                comment(&operation.path)
            );
            continue;
        }
        let mut name = name(operation);
        let alone = names.get(&name).is_none_or(|count| *count == 1);
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
    }
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
mod tests {
    use super::*;
    use crate::config::Config;

    /// What is made of each document loads, and each route is of its operation.
    #[test]
    fn what_is_imported_loads() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openapi");
        for (document, count) in [("orders.yaml", 6), ("bookings.yaml", 3), ("library.json", 2)] {
            let file = directory.join(document);
            let contract = Contract::load(&file).unwrap_or_else(|fault| panic!("{document}: {fault}"));
            let made = routes(&contract, &file, "api");
            let text = format!("listen: [{{address: 127.0.0.1:1}}]\nxdp: {{mode: none}}\n{made}");
            let (config, _) = Config::parse(&text, document, &directory)
                .unwrap_or_else(|faults| panic!("{faults}\n{made}"));
            assert_eq!(config.routes.len(), count, "{made}");
            for route in &config.routes {
                let rule = route.validate.as_ref().expect("a rule");
                assert!(rule.operation.is_some(), "{}", route.name);
            }
        }
    }

    #[test]
    fn nothing_of_a_document_gets_out_of_its_place() {
        let text = r##"{"openapi": "3.0.0", "servers": [{"url": "http://h/b\"\n- evil"}], "paths": {"/a": {"get": {
            "operationId": "x\"\nroutes: []", "security": [{"k\nupstream: evil": []}], "responses": {}}}}}"##;
        let contract = Contract::parse(text, Path::new("/nonexistent")).expect("a document");
        let made = routes(&contract, Path::new("a\nb"), "u\np");
        assert!(
            made.lines()
                .all(|line| line.starts_with([' ', '#']) || line == "routes:" || line == "upstreams:"),
            "{made}"
        );
        assert!(!made.contains("\nupstream: evil"), "{made}");
    }
}
