//! The table "who may import whom", checked against the sources.
//!
//! The table is the design; where building proves it wrong, it is changed here and in `ARCHITECTURE.md` together. Code
//! under `#[cfg(test)]` is free: tests may join what the product keeps apart.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;

use super::source::{self, Source};
use super::tokens;

/// What each module of the gateway may name of its siblings. A name may go deeper than a module, as in `http::reject`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("net", &[]),
    ("http1", &["net"]),
    ("telemetry", &["config", "http::reject"]),
    ("upstream", &["config", "net", "http1", "telemetry"]),
    ("http", &["config", "net", "http1", "upstream", "telemetry"]),
    ("dataplane", &["config", "telemetry"]),
    (
        "strikes",
        &["config", "http::reject", "http::client", "dataplane", "telemetry"],
    ),
    (
        "runtime",
        &["config", "http", "upstream", "dataplane", "telemetry"],
    ),
    (
        "admin",
        &[
            "config",
            "runtime",
            "dataplane",
            "strikes",
            "telemetry",
            "http::reject",
        ],
    ),
    ("app", &["*"]),
    ("cli", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// Something that only some files may name.
struct Reserved {
    /// The path, or with a trailing `*` any whose first segment begins so.
    name: &'static str,
    /// Beginnings of the files that may name it.
    by: &'static [&'static str],
    why: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        name: "aya*",
        by: &[
            "gateway/src/dataplane/kernel",
            "gateway-ebpf/src/main",
            "gateway-ebpf/src/maps",
            "gateway-ebpf/src/exit",
            "gateway-ebpf/src/answer",
            "gateway-common/src/",
        ],
        why: "the kernel is reached through `Backend`; common needs the marker for types that cross",
    },
    Reserved {
        name: "saphyr*",
        by: &["gateway/src/config/raw"],
        why: "the file format is the raw shape's alone",
    },
    Reserved {
        name: "serde_yaml*",
        by: &["gateway/src/config/raw"],
        why: "the file format is the raw shape's alone",
    },
    Reserved {
        name: "serde_saphyr*",
        by: &["gateway/src/config/raw"],
        why: "the file format is the raw shape's alone",
    },
    Reserved {
        name: "std::env",
        by: EDGE,
        why: "below app, the environment is an argument",
    },
    Reserved {
        name: "std::time::SystemTime::now",
        by: CALENDAR,
        why: "below app, the time is an argument; only the text of a `Date` line is made where it is sent",
    },
    Reserved {
        name: "std::time::Instant::now",
        by: EDGE,
        why: "a test can not pause it; take the time as an argument, or tokio's",
    },
];

/// Where the environment and the clock are read. The build script and the other crates' tools are at the edge, too.
const EDGE: &[&str] = &[
    "gateway/src/app",
    "gateway/src/cli",
    "gateway/src/main",
    "gateway/build",
    "gateway-common/",
    "gateway-ebpf/",
];

/// As `EDGE`, and the text of a `Date` line.
const CALENDAR: &[&str] = &[
    "gateway/src/app",
    "gateway/src/cli",
    "gateway/src/http/date",
    "gateway/src/main",
    "gateway/build",
    "gateway-common/",
    "gateway-ebpf/",
];

/// Every breach of the table, as lines for people.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let sources = source::all(root)?;
    let product = sources
        .iter()
        .filter(|source| source.path.starts_with("gateway") && !is_test(&source.path));
    Ok(product.flat_map(faults).collect())
}

/// Whole files that only tests compile.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let here = module(&source.path);
    let found = tokens::paths(&source.text);
    let mut aliases = HashMap::new();
    for named in &found {
        if let (Some(alias), [_, _, ..]) = (&named.alias, named.segments.as_slice()) {
            aliases.insert(alias.clone(), resolve(&named.segments, &here, &HashMap::new()));
        }
    }
    let own = here.first().map_or("", String::as_str);
    if source.path.starts_with("gateway/src/") && !MAY_IMPORT.iter().any(|(module, _)| *module == own) {
        faults.push(format!(
            "{}:1: module `{own}` has no line in the import table ({})",
            source.path,
            file!()
        ));
    }
    // A single name is a variable or an item in reach; only a path says where it comes from.
    for named in found.iter().filter(|named| named.segments.len() > 1) {
        let path = resolve(&named.segments, &here, &aliases);
        let place = format!("{}:{}", source.path, named.line);
        if let Some(fault) = sibling_fault(&source.path, &here, &path) {
            faults.push(format!("{place}: {fault}"));
        }
        faults.extend(
            RESERVED
                .iter()
                .filter(|reserved| breaches(reserved, &source.path, &path))
                .map(|reserved| {
                    format!(
                        "{place}: `{}` stands only under {}: {}",
                        path.join("::"),
                        reserved.by.join(", "),
                        reserved.why
                    )
                }),
        );
    }
    faults.dedup();
    faults
}

/// The module path of a file, below its crate.
fn module(path: &str) -> Vec<String> {
    let inside = path
        .split_once("/src/")
        .map_or("", |(_, inside)| inside)
        .trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    inside.split('/').map(str::to_owned).collect()
}

/// A path from the crate's root or from another crate: `super`, `self` and imported names are replaced.
fn resolve(segments: &[String], here: &[String], aliases: &HashMap<String, Vec<String>>) -> Vec<String> {
    let Some((first, rest)) = segments.split_first() else {
        return Vec::new();
    };
    let mut whole = match first.as_str() {
        "super" => {
            let ups = segments.iter().take_while(|segment| *segment == "super").count();
            let kept = here.len().saturating_sub(ups);
            let mut whole = vec!["crate".to_owned()];
            whole.extend_from_slice(&here[..kept]);
            whole.extend_from_slice(&segments[ups..]);
            return whole;
        }
        "self" => [vec!["crate".to_owned()], here.to_vec()].concat(),
        name => aliases
            .get(name)
            .cloned()
            .unwrap_or_else(|| vec![name.to_owned()]),
    };
    whole.extend_from_slice(rest);
    whole
}

/// Whether a file of the gateway names a sibling module that the table does not give it.
fn sibling_fault(file: &str, here: &[String], path: &[String]) -> Option<String> {
    if file.starts_with("gateway-ebpf/src/packet") && path.starts_with(&["crate".into(), "policy".into()]) {
        return Some(
            "`packet` must not know `policy`: bytes become facts before anyone judges them".to_owned(),
        );
    }
    if !file.starts_with("gateway/src/") {
        return None;
    }
    let (own, inside) = (here.first()?, path.strip_prefix(&["crate".to_owned()])?);
    let other = inside.first()?;
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(module, _)| module == own) else {
        return Some(format!(
            "module `{own}` has no line in the import table ({})",
            file!()
        ));
    };
    let inside = inside.join("::");
    let given = |name: &&str| *name == "*" || inside == **name || inside.starts_with(&format!("{name}::"));
    // A name that is no module is an item of the crate's root.
    let is_module = MAY_IMPORT.iter().any(|(module, _)| module == other);
    if other == own || !is_module || allowed.iter().any(given) {
        return None;
    }
    let list = if allowed.is_empty() {
        "nothing".to_owned()
    } else {
        allowed.join(", ")
    };
    Some(format!(
        "`{own}` must not import `{inside}`; of its siblings it may know {list}"
    ))
}

fn breaches(reserved: &Reserved, file: &str, path: &[String]) -> bool {
    let matches = match reserved.name.strip_suffix('*') {
        Some(beginning) => path.first().is_some_and(|first| first.starts_with(beginning)) && path.len() > 1,
        None => {
            let path = path.join("::");
            path == reserved.name || path.starts_with(&format!("{}::", reserved.name))
        }
    };
    matches && !reserved.by.iter().any(|beginning| file.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        faults(&Source {
            path: path.into(),
            text: text.into(),
        })
        .len()
    }

    #[test]
    fn siblings_that_must_not_meet() {
        for (file, text) in [
            ("gateway/src/http/service.rs", "use crate::dataplane::Handle;"),
            ("gateway/src/http/service.rs", "use crate::{config, dataplane};"),
            (
                "gateway/src/http/filter/auth.rs",
                "fn f() { super::super::super::dataplane::g() }",
            ),
            ("gateway/src/upstream/mod.rs", "use crate::http::reject::Reject;"),
            ("gateway/src/dataplane/plan.rs", "fn f(r: crate::http::Reject) {}"),
            ("gateway/src/config/check.rs", "use super::super::upstream::Pool;"),
            ("gateway/src/strikes.rs", "use crate::http::service::Service;"),
            ("gateway/src/unheard/mod.rs", "use crate::config::Config;"),
            ("gateway-ebpf/src/packet.rs", "use crate::policy::decide;"),
        ] {
            assert_eq!(count(file, text), 1, "{file}: {text}");
        }
    }

    #[test]
    fn siblings_that_may() {
        for (file, text) in [
            (
                "gateway/src/http/service.rs",
                "use crate::config::Config; use super::reject::Reject; use crate::upstream::Pool;",
            ),
            (
                "gateway/src/strikes.rs",
                "use crate::http::reject::Reject; use crate::dataplane::Handle;",
            ),
            (
                "gateway/src/app/mod.rs",
                "use crate::{admin, dataplane, http, strikes};",
            ),
            (
                "gateway/src/http/mod.rs",
                "#[cfg(test)] mod tests { use crate::dataplane::memory; }",
            ),
            (
                "gateway/src/config/check.rs",
                "use super::model::Config; use crate::config::raw;",
            ),
        ] {
            assert_eq!(count(file, text), 0, "{file}: {text}");
        }
    }

    #[test]
    fn reserved_names() {
        for (file, text, faults) in [
            ("gateway/src/http/mod.rs", "use aya::maps::HashMap;", 1),
            ("gateway/src/dataplane/plan.rs", "use aya_log::EbpfLogger;", 1),
            (
                "gateway/src/dataplane/kernel/maps.rs",
                "use aya::maps::HashMap;",
                0,
            ),
            ("gateway/src/config/check.rs", "use saphyr_parser::Parser;", 1),
            ("gateway/src/config/raw/tree.rs", "use saphyr_parser::Parser;", 0),
            (
                "gateway/src/strikes.rs",
                "use std::time::Instant; fn f() { Instant::now(); }",
                1,
            ),
            (
                "gateway/src/strikes.rs",
                "use std::time; fn f() { time::Instant::now(); }",
                1,
            ),
            (
                "gateway/src/strikes.rs",
                "fn f() { std::time::SystemTime::now(); }",
                1,
            ),
            (
                "gateway/src/strikes.rs",
                "use std::time::Instant; fn f(now: Instant) {}",
                0,
            ),
            (
                "gateway/src/upstream/mod.rs",
                "use tokio::time::Instant; fn f() { Instant::now(); }",
                0,
            ),
            (
                "gateway/src/http/mod.rs",
                "use std::env; fn f() { env::var(\"A\"); }",
                2,
            ),
            ("gateway/src/app/mod.rs", "fn f() { std::env::var(\"A\"); }", 0),
            ("gateway/src/http/mod.rs", "fn f() { let aya = 1; }", 0),
        ] {
            assert_eq!(count(file, text), faults, "{file}: {text}");
        }
    }
}
