//! The form before version 0.2: one JSON document. Read once; the first change writes the new form and removes it.

use std::fs;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;

use super::{RuleList, Saved, StoreError, io};

const FILE: &str = "rules.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    list: RuleList,
    net: IpNet,
    #[serde(default)]
    until_ms: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    forced: bool,
}

/// What the old file holds; nothing if there is none.
pub fn read(directory: &Path) -> Result<Vec<Saved>, StoreError> {
    let path = directory.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let damaged = |detail: String| StoreError::Damaged {
        path: path.clone(),
        detail,
    };
    let document: Document = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if document.version != 1 {
        return Err(damaged(format!(
            "form {} is not known to this version",
            document.version
        )));
    }
    let rules = document.rules.into_iter().map(|rule| Saved {
        list: rule.list,
        net: rule.net,
        until_ms: rule.until_ms,
        reason: rule.reason.map(Into::into),
        forced: rule.forced,
    });
    Ok(rules.collect())
}

/// Removes the old file: the new one holds all of it.
pub fn forget(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE));
}
