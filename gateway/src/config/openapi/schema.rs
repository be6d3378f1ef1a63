//! Schemas of OpenAPI 3.0 and 3.1 to JSON Schema 2020-12.
//!
//! Every schema that is asked for, and every one that it refers to, becomes an entry of one bundle, with references between entries
//! only. So what validates never sees a file or an address, and cycles are no matter. What says nothing of an instance (titles,
//! examples, formats) is left out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Fault;
use super::files::{Files, Place};

/// The bundle's name in references to it.
pub(super) const BUNDLE: &str = "urn:gateway:openapi";
/// Most schemas of a bundle, and their deepest nesting.
const MOST: usize = 20_000;
const MOST_DEPTH: usize = 64;

/// Which way a message goes. What is `readOnly` need not be in a request, what is `writeOnly` not in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Request,
    Response,
}

/// Schemas, translated.
#[derive(Debug)]
pub(super) struct Bundle {
    /// Whether the document is of OpenAPI 3.0.
    old: bool,
    numbers: BTreeMap<(Place, Way), usize>,
    entries: Vec<Value>,
}

/// Keywords whose value is a schema, a list or a mapping of them, or is taken as it is.
const ONE: [&str; 10] = [
    "not",
    "if",
    "then",
    "else",
    "additionalProperties",
    "items",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const MAPS: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
const PLAIN: [&str; 18] = [
    "type",
    "enum",
    "const",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "dependentRequired",
];
const MORE: [&str; 2] = ["minContains", "maxContains"];
/// What changes what a reference means; without it the schema would say something else.
const UNKNOWN: [&str; 4] = ["$id", "$dynamicRef", "$anchor", "$recursiveRef"];

impl Bundle {
    pub(super) fn new(old: bool) -> Self {
        Self {
            old,
            numbers: BTreeMap::new(),
            entries: Vec::new(),
        }
    }

    /// The number of a schema.
    pub(super) fn add(&mut self, files: &mut Files, place: &Place, way: Way) -> Result<usize, Fault> {
        let mut waiting = Vec::new();
        let number = self.number(place, way, &mut waiting)?;
        while let Some((number, place)) = waiting.pop() {
            let value = files
                .at(&place)
                .cloned()
                .ok_or_else(|| Fault::new(&files.show(&place), "a $ref leads here, and there is nothing"))?;
            let entry = self.translate(files, &place, &value, way, 0, &mut waiting)?;
            if let Some(held) = self.entries.get_mut(number) {
                *held = entry;
            }
        }
        Ok(number)
    }

    /// All of it, as one schema resource.
    pub(super) fn document(&self) -> Value {
        let entries = self.entries.iter().enumerate();
        let defs: Map<String, Value> = entries.map(|(n, entry)| (n.to_string(), entry.clone())).collect();
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": defs})
    }

    /// A schema that is an entry.
    pub(super) fn reference(number: usize) -> Value {
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": format!("{BUNDLE}#/$defs/{number}")})
    }

    pub(super) fn entry(&self, number: usize) -> &Value {
        self.entries.get(number).unwrap_or(&Value::Null)
    }

    /// The entry that a schema of the bundle refers to.
    pub(super) fn referred<'b>(&'b self, schema: &'b Value) -> Option<&'b Value> {
        let reference = schema.get("$ref")?.as_str()?;
        self.entries
            .get(reference.rsplit('/').next()?.parse::<usize>().ok()?)
    }

    fn number(&mut self, place: &Place, way: Way, waiting: &mut Vec<(usize, Place)>) -> Result<usize, Fault> {
        let key = (place.clone(), way);
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.entries.len();
        if number >= MOST {
            return Err(Fault::new(&place.pointer, format!("more than {MOST} schemas")));
        }
        self.entries.push(Value::Bool(true));
        self.numbers.insert(key, number);
        waiting.push((number, place.clone()));
        Ok(number)
    }

    fn translate(
        &mut self,
        files: &mut Files,
        place: &Place,
        schema: &Value,
        way: Way,
        depth: usize,
        waiting: &mut Vec<(usize, Place)>,
    ) -> Result<Value, Fault> {
        let shown = files.show(place);
        let members = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(members) => members,
            _ => return Err(Fault::new(&shown, "is not a schema")),
        };
        if depth > MOST_DEPTH {
            return Err(Fault::new(&shown, "is nested too deeply"));
        }
        let mut out = Map::new();
        if let Some(reference) = members.get("$ref") {
            let reference = reference
                .as_str()
                .ok_or_else(|| Fault::new(&shown, "$ref is not text"))?;
            let target = files.resolve(place, reference)?;
            let number = self.number(&target, way, waiting)?;
            out.insert(
                "$ref".to_owned(),
                Value::from(format!("{BUNDLE}#/$defs/{number}")),
            );
            // Beside a reference there is nothing in 3.0.
            if self.old {
                return Ok(Value::Object(out));
            }
        }
        if let Some(name) = UNKNOWN.iter().find(|name| members.contains_key(**name)) {
            return Err(Fault::new(&shown, format!("{name} is not supported")));
        }
        for (name, value) in members {
            let at = place.step(name);
            let name = name.as_str();
            if ONE.contains(&name) {
                let schema = self.translate(files, &at, value, way, depth + 1, waiting)?;
                out.insert(name.to_owned(), schema);
            } else if LISTS.contains(&name) {
                let items = value
                    .as_array()
                    .ok_or_else(|| Fault::new(&files.show(&at), "is not a list"))?;
                let items = items.iter().enumerate().map(|(n, item)| {
                    self.translate(files, &at.step(&n.to_string()), item, way, depth + 1, waiting)
                });
                out.insert(name.to_owned(), Value::Array(items.collect::<Result<_, _>>()?));
            } else if MAPS.contains(&name) {
                let map = value
                    .as_object()
                    .ok_or_else(|| Fault::new(&files.show(&at), "is not a mapping"))?;
                let map = map.iter().map(|(key, item)| {
                    let schema = self.translate(files, &at.step(key), item, way, depth + 1, waiting)?;
                    Ok((key.clone(), schema))
                });
                out.insert(name.to_owned(), Value::Object(map.collect::<Result<_, Fault>>()?));
            } else if PLAIN.contains(&name) || MORE.contains(&name) {
                out.insert(name.to_owned(), value.clone());
            }
        }
        if self.old {
            modernise(&mut out, members);
        }
        relax(files, place, members, way, &mut out);
        Ok(Value::Object(out))
    }
}

/// What 3.0 says differently: `nullable`, and exclusive bounds that are truths.
fn modernise(out: &mut Map<String, Value>, members: &Map<String, Value>) {
    for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match out.get(flag) {
            Some(Value::Bool(true)) => {
                let value = out.remove(bound);
                out.remove(flag);
                out.extend(value.map(|value| (flag.to_owned(), value)));
            }
            Some(Value::Bool(false)) => drop(out.remove(flag)),
            _ => {}
        }
    }
    // It adds null to the types, and says nothing where there is no type (OpenAPI 3.0.3, "nullable").
    if members.get("nullable") == Some(&Value::Bool(true))
        && let Some(Value::String(kind)) = out.get("type")
    {
        let both = json!([kind, "null"]);
        out.insert("type".to_owned(), both);
    }
}

/// Leaves out of `required` what this way does not carry.
fn relax(
    files: &mut Files,
    place: &Place,
    members: &Map<String, Value>,
    way: Way,
    out: &mut Map<String, Value>,
) {
    let flag = match way {
        Way::Request => "readOnly",
        Way::Response => "writeOnly",
    };
    let Some(Value::Array(required)) = out.get_mut("required") else {
        return;
    };
    let Some(properties) = members.get("properties").and_then(Value::as_object) else {
        return;
    };
    let at = place.step("properties");
    let mut exempt = |name: &str| {
        let Some(schema) = properties.get(name) else {
            return false;
        };
        let own = schema.get(flag) == Some(&Value::Bool(true));
        let mut referred = || {
            let target = files.follow(&at.step(name)).ok()?;
            Some(files.at(&target)?.get(flag) == Some(&Value::Bool(true)))
        };
        own || schema.get("$ref").is_some() && referred().unwrap_or(false)
    };
    required.retain(|name| !name.as_str().is_some_and(&mut exempt));
}
