//! What can be typed after `import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::HowArgs;

/// The form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// By the file's name, or else by how it begins.
    #[default]
    Auto,
    /// One network a line; `#` and `;` start a comment, which is the reason; `until=SECONDS` ends the entry.
    Text,
    /// The column named address, cidr, ip or network, or the first; columns reason, ttl and expires are used.
    Csv,
    /// An array of texts, or of objects with cidr, ip, address, network or value, and reason, ttl or expires.
    Json,
}

/// Options of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// A file, or `-` for standard input.
    pub file: PathBuf,
    /// The form of the list.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: Format,
    /// Have the list in the place of all that was commanded before: a packet meets the old list or the new one.
    #[arg(long)]
    pub replace: bool,
    /// Change nothing if a single line is bad, as with --replace.
    #[arg(long)]
    pub strict: bool,
    /// Leave bad lines out even with --replace, which then takes the place of all there was with the rest.
    #[arg(long, conflicts_with = "strict")]
    pub lenient: bool,
    /// Keep networks as they are listed, instead of joining those that lie side by side or in each other.
    #[arg(long)]
    pub no_aggregate: bool,
    #[command(flatten)]
    pub how: HowArgs,
}
