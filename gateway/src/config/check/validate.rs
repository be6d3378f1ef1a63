//! `validate` of a route: what describes its requests and answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{files, patterns};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{ResponseCheck, Shape, Validate};
use crate::config::openapi::Contract;
use crate::config::scalar::{choice, number, truth, within};
use crate::config::units;

const RESPONSES: [(&str, ResponseCheck); 3] = [
    ("off", ResponseCheck::Off),
    ("observe", ResponseCheck::Observe),
    ("enforce", ResponseCheck::Enforce),
];
const UNKNOWN: [(&str, bool); 2] = [("allow", false), ("refuse", true)];

/// Documents that were read, so that routes share them. `None` for one that is not good, which is told once.
#[derive(Default)]
pub(super) struct Documents(BTreeMap<PathBuf, Option<Arc<Contract>>>);

/// `validate: {openapi: {file: ...}}`.
pub(super) fn validate(
    walk: &mut Walk,
    route: &mut Table<'_>,
    documents: &mut Documents,
) -> Option<Validate> {
    let field = route.get(walk, "validate")?;
    if !route.has("upstream") && !route.has("upstreams") {
        walk.fault(
            &field,
            Wrong::new("there is no upstream whose requests could be held against a document"),
        );
    }
    walk.table(&field, |walk, table| {
        let field = table.require(walk, "openapi", "such as openapi: {file: api.yaml}")?;
        walk.table(&field, |walk, table| openapi(walk, table, documents))?
    })?
}

fn openapi(walk: &mut Walk, table: &mut Table<'_>, documents: &mut Documents) -> Option<Validate> {
    let file = table.require(walk, "file", "an OpenAPI document, 3.0 or 3.1, in YAML or JSON");
    let operation = table.get(walk, "operation");
    let base = table.value(walk, "base", base);
    let observe = table.value_or(walk, "observe", false, truth);
    let response = table.value_or(walk, "response", ResponseCheck::Off, choice(&RESPONSES));
    let refuse_unknown_query = table.value_or(walk, "unknown_query", false, choice(&UNKNOWN));
    let size = within(1..=64 << 20, units::size, units::show_size);
    let max_bytes = table.value_or(walk, "max_bytes", defaults::BODY_EDIT_BYTES, size);
    let max_depth = table.value_or(walk, "max_depth", defaults::JSON_DEPTH, number(1..=100));
    let contract = documents.get(walk, &file?)?;
    let operation = match operation {
        None => None,
        Some(field) => Some(walk.value(&field, |id| {
            contract.operation(id).map(|(at, _)| at).ok_or_else(|| {
                let wrong = Wrong::new(format!("the document has no operation {}", quote(id)));
                let known = contract
                    .operations
                    .iter()
                    .filter_map(|operation| operation.id.as_deref());
                match crate::config::fault::nearest(id, known) {
                    Some(known) => wrong.hint(format!("did you mean {}?", quote(known))),
                    None => wrong,
                }
            })
        })?),
    };
    Some(Validate {
        base: base.unwrap_or_else(|| contract.base.clone()),
        contract,
        operation,
        observe,
        response,
        refuse_unknown_query,
        max_bytes,
        max_depth,
    })
}

impl Documents {
    fn get(&mut self, walk: &mut Walk, field: &Field<'_>) -> Option<Arc<Contract>> {
        let path = files::named(walk, field)?;
        if let Some(known) = self.0.get(&path) {
            return known.clone();
        }
        let read = walk.value(field, |_| {
            Contract::load(&path).map(Arc::new).map_err(|fault| {
                let shown = quote(&path.to_string_lossy());
                Wrong::new(format!("the document {shown} can not be used: {fault}"))
            })
        });
        let read_from = read.iter().flat_map(|contract| contract.files.iter());
        walk.files
            .extend(read_from.map(|file| file.display().to_string()));
        self.0.insert(path, read.clone());
        read
    }
}

/// The front of a path, or `/` for none.
fn base(text: &str) -> Result<String, Wrong> {
    if text == "/" {
        return Ok(String::new());
    }
    let path = patterns::path(text)?;
    match path.shape {
        Shape::Segments { prefix: false, .. } if path.captures().next().is_none() => Ok(text.to_owned()),
        _ => Err(Wrong::new(format!("{} is not the front of a path", quote(text)))
            .hint("written out, such as /v1")),
    }
}
