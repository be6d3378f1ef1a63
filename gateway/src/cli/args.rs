//! What can be typed. Owns the words, their help and examples; gives them no meaning.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use ipnet::IpNet;

use super::import::ImportArgs;
use crate::config::defaults;

const EXITS: &str = "\
Exit codes:
  0  done
  1  failed, or only partly done
  2  wrong usage, configuration or input; nothing was changed
  3  refused, since it would lock someone out (--force overrides); nothing was changed
  4  another XDP program holds the interface; nothing was changed
  5  remembered, but not enforced: no gateway is attached, or no interface filtered

Every command works with and without a running gateway; with none, it works on what is pinned in the kernel.";

const IMPORT: &str = "\
Examples:
  gateway deny import drop.txt --reason 'our list' --ttl 7d
  curl -s https://feed.example/list.csv | gateway deny import --format csv -
  gateway deny import --replace --strict feed.json      all of it in one moment, or nothing

Plain text is one network a line; `#` and `;` start a comment, which becomes the reason; `until=SECONDS` (since 1970)
ends an entry. CSV takes the column named address, cidr, ip or network, or the first, and columns named reason, ttl and
expires. JSON is an array of texts, or of objects with cidr, ip, address or value, and reason, ttl or expires.

Bad lines are named, the first 20 of them, and left out (exit code 1); --strict takes all or nothing (exit code 2).";

/// An edge gateway: packets filtered in the kernel, requests proxied above, one memory of who misbehaves.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, after_help = EXITS, max_term_width = 110)]
pub struct Args {
    /// The configuration file [default: /etc/gateway/gateway.yaml]. `run` and `check` need a good one; the others use
    /// what can be read of it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The running gateway's admin socket, instead of the one that the configuration names; no configuration is read.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Where the configuration is.
    #[must_use]
    pub fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(defaults::CONFIG_FILE))
    }

    /// Whether it was said where the configuration is.
    #[must_use]
    pub fn names_config(&self) -> bool {
        self.config.is_some()
    }

    /// What another command needs to reach the same gateway as this one: empty, or options with a blank in front.
    #[must_use]
    pub fn same_gateway(&self) -> String {
        option("--config", self.config.as_deref()) + &option("--socket", self.socket.as_deref())
    }

    /// What another command needs to read the same file as this one.
    #[must_use]
    pub fn same_config(&self) -> String {
        option("--config", self.config.as_deref())
    }
}

fn option(name: &str, path: Option<&Path>) -> String {
    path.map(|path| format!(" {name} {}", quoted(&path.to_string_lossy())))
        .unwrap_or_default()
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop. The packet filter stays in the kernel when the gateway ends, by whatever cause.
    #[command(after_help = "\
Examples:
  gateway run --config /etc/gateway/gateway.yaml
  gateway run --config demo.yaml --ephemeral     take the packet filter away again at the end

Signals: SIGTERM and SIGINT stop after the open requests have ended; SIGHUP reloads the configuration.")]
    Run {
        /// Detach the program and remove all pins when the gateway is told to stop.
        #[arg(long)]
        ephemeral: bool,
    },

    /// Read the configuration and report every fault in it. Changes nothing.
    #[command(after_help = "Example:\n  gateway check --config /etc/gateway/gateway.yaml")]
    Check,

    /// Sources whose packets are dropped.
    #[command(after_help = "\
Examples:
  gateway deny add 203.0.113.7 --ttl 10m --reason 'scanner'
  gateway deny add 198.51.100.0/24 2001:db8:bad::/48
  gateway deny del 203.0.113.7
  gateway deny import drop.txt        plain text, CSV or JSON; `-` reads standard input
  gateway deny import --replace feed.csv    the list in the place of the old one, at once
  gateway deny export > backup.txt    what `import` reads again")]
    Deny {
        #[command(subcommand)]
        command: RuleCommand,
    },

    /// Sources whose packets always pass. Allow wins over deny and block.
    #[command(after_help = "\
Examples:
  gateway allow add 10.0.0.0/8 --reason 'office'
  gateway allow import office.txt
  gateway allow list --json")]
    Allow {
        #[command(subcommand)]
        command: RuleCommand,
    },

    /// Sources denied for a time because of what they did.
    #[command(after_help = "\
Examples:
  gateway block list
  gateway block del 203.0.113.7")]
    Block {
        #[command(subcommand)]
        command: BlockCommand,
    },

    /// What is attached, listed and counted; desired beside enforced.
    Status,

    /// Say what happens to an address or a request, and why.
    #[command(after_help = "\
Examples:
  gateway explain 203.0.113.7
  gateway explain https://api.example.com/v1/orders/7 --method POST")]
    Explain {
        /// An IP address or a URL.
        #[arg(value_name = "ADDR|URL")]
        what: String,
        /// The request's method.
        #[arg(long, default_value = "GET")]
        method: String,
    },

    /// Have the running gateway read its configuration again. A faulty one changes nothing.
    Reload,

    /// Take the packet filter out of the kernel: program, tables and pins. Commanded rules stay remembered on disk.
    Detach,
}

#[derive(Clone, Debug, Subcommand)]
pub enum RuleCommand {
    /// Add networks, in force at once and remembered across restarts.
    Add(AddArgs),
    /// Remove networks that were added by command.
    #[command(alias = "delete", alias = "remove")]
    Del {
        #[arg(required = true, value_name = "CIDR", value_parser = network)]
        nets: Vec<IpNet>,
    },
    /// Show every entry: from where it came, how long it lasts, how often it was met.
    List,
    /// Add networks from a file of plain text, CSV or JSON. Those that lie side by side or in each other are joined.
    #[command(after_help = IMPORT)]
    Import(ImportArgs),
    /// Print the commanded entries in the form that `import` reads.
    Export,
    /// Remove every entry that was added by command.
    Flush,
}

#[derive(Clone, Debug, clap::Args)]
pub struct AddArgs {
    #[arg(required = true, value_name = "CIDR", value_parser = network)]
    pub nets: Vec<IpNet>,
    #[command(flatten)]
    pub how: HowArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct HowArgs {
    /// End the entry after this time, such as 90s, 10m, 2h or 7d. Without it the entry stays.
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub ttl: Option<Duration>,
    /// Why, for those who ask later.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Deny even this host's own addresses, SSH clients and trusted proxies.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BlockCommand {
    /// Show every block: why, how long it lasts, how often it was met.
    List,
    /// Lift blocks.
    #[command(alias = "delete", alias = "remove")]
    Del {
        #[arg(required = true, value_name = "ADDR")]
        addrs: Vec<IpAddr>,
    },
}

/// A time after which something is left of the entry.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = crate::config::units::duration(text).map_err(|fault| fault.to_string())?;
    if ttl.is_zero() {
        return Err(
            "an entry that ends at once is none; leave --ttl out for an entry without an end".to_owned(),
        );
    }
    Ok(ttl)
}

/// A network or single address, without host bits. IPv4-mapped addresses are taken as IPv4.
fn network(text: &str) -> Result<IpNet, String> {
    crate::config::units::network(text).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_in_the_help_is_the_default() {
        use clap::CommandFactory as _;
        let help = Args::command().render_long_help().to_string();
        assert!(
            help.contains(&format!("[default: {}]", defaults::CONFIG_FILE)),
            "{help}"
        );
    }

    #[test]
    fn another_command_reaches_the_same_gateway() {
        let args = |words: &[&str]| Args::try_parse_from(words).expect("good words").same_gateway();
        assert_eq!(args(&["gateway", "status"]), "");
        assert_eq!(
            args(&[
                "gateway",
                "status",
                "--config",
                "/a b/it's.yaml",
                "--socket",
                "/run/x.sock"
            ]),
            r" --config '/a b/it'\''s.yaml' --socket /run/x.sock"
        );
    }
}
