//! Reports: docs/benchmarks.md, one section for each bench, and the plot beside it.

mod document;
mod machine;
mod markdown;
mod plot;
mod requests;
pub mod terminal;

use anyhow::{Context as _, Result};

use super::http::results as http;
use super::packets::results::Results;
use crate::shell;

const DOCUMENT: &str = "docs/benchmarks.md";
const PACKETS_PLOT: &str = "benchmarks-packets.svg";
const REQUESTS_PLOT: &str = "benchmarks-requests.svg";

/// Puts the figures of `bench packets` into the document and draws the plot.
pub fn packets(results: &Results) -> Result<()> {
    let groups = markdown::groups(results);
    let svg = plot::svg("Packets a second, in millions", &groups, plot::Scale::Shared);
    write_plot(PACKETS_PLOT, &svg)?;
    section(
        "packets",
        &markdown::packets(results, PACKETS_PLOT, &machine::describe(&["nft", "xdp-filter"])),
    )
}

/// Puts the figures of `bench http` into the document and draws the plot.
pub fn requests(results: &http::Results) -> Result<()> {
    let title = "Processor time and memory, less is better";
    let svg = plot::svg(title, &requests::groups(results), plot::Scale::Group);
    write_plot(REQUESTS_PLOT, &svg)?;
    let machine = machine::describe(&["nginx", "haproxy", "caddy", "h2load"]);
    section("http", &requests::section(results, REQUESTS_PLOT, &machine))
}

/// Prints a case of `bench http`.
pub fn requests_case(case: &http::CaseResult) {
    requests::print(case);
}

/// Prints what all its cases come to.
pub fn requests_summary(results: &http::Results) {
    requests::print_summary(results);
}

fn write_plot(name: &str, svg: &str) -> Result<()> {
    let docs = shell::root().join("docs");
    std::fs::create_dir_all(&docs).context("making docs")?;
    std::fs::write(docs.join(name), svg).with_context(|| format!("writing docs/{name}"))
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
