//! Reports: docs/benchmarks.md, one section for each bench, and the plot beside it.

mod document;
mod machine;
mod markdown;
mod plot;
pub mod terminal;

use anyhow::{Context as _, Result};

use super::packets::results::Results;
use crate::shell;

const DOCUMENT: &str = "docs/benchmarks.md";
const PLOT: &str = "benchmarks-packets.svg";

/// Puts the figures of `bench packets` into the document and draws the plot.
pub fn packets(results: &Results) -> Result<()> {
    let docs = shell::root().join("docs");
    std::fs::create_dir_all(&docs).context("making docs")?;
    std::fs::write(docs.join(PLOT), plot::svg(&results.cases)).context("writing the plot")?;
    section(
        "packets",
        &markdown::packets(results, PLOT, &machine::describe(&["nft", "xdp-filter"])),
    )
}

/// Puts the table of `bench http` into the document.
pub fn http(table: &str, method: &str) -> Result<()> {
    section(
        "http",
        &markdown::http(table, method, &machine::describe(&["nginx", "haproxy"])),
    )
}

fn section(name: &str, text: &str) -> Result<()> {
    let path = shell::root().join(DOCUMENT);
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("reading docs/benchmarks.md"),
    };
    let new = document::replace(&old, name, text);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context("making docs")?;
    }
    std::fs::write(&path, new).context("writing docs/benchmarks.md")?;
    shell::step(format!("wrote the section {name} of {DOCUMENT}"));
    Ok(())
}
