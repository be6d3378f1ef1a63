//! What can be typed. Owns the words, their help and examples; gives them no meaning.

use std::cell::Cell;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use gateway_common::outcome::DropReason;
use ipnet::IpNet;

use super::import::ImportArgs;
use crate::config::defaults;
use crate::dataplane::engine::LONGEST_BYPASS;

/// The tables hold ends up to 3,336 days after boot; a later one would be brought forward in silence.
pub const LONGEST_TTL: Duration = Duration::from_secs(3_000 * 24 * 3_600);
const LONGEST_CONFIRM: Duration = Duration::from_secs(24 * 3_600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

const EXITS: &str = "\
Exit codes:
  0  done
  1  failed, or only partly done; `verify` found drift; `doctor` found what must be mended; the state on disk is damaged
  2  wrong usage, configuration or input; nothing was changed
  3  refused, since it would lock someone out (--force overrides); nothing was changed
  4  another XDP program holds the interface; nothing was changed
  5  remembered, but not enforced: no gateway is attached, or no interface filtered; so says `status`, too

Every command works with and without a running gateway; with none, it works on what is pinned in the kernel.";

const IMPORT: &str = "\
Examples:
  gateway deny import drop.txt --reason 'our list' --ttl 7d
  curl -s https://feed.example/list.csv | gateway deny import --format csv -
  gateway deny import --replace feed.json               all of it in one moment, or nothing

Plain text is one network a line; `#` and `;` start a comment, which becomes the reason; `until=SECONDS` (since 1970)
ends an entry. CSV takes the column named address, cidr, ip or network, or the first, and columns named reason, ttl and
expires. JSON is an array of texts, or of objects with cidr, ip, address or value, and reason, ttl or expires.

Bad lines are named, the first 20 of them, and left out (exit code 1). --replace and --strict take all or nothing (exit code
2); --replace --lenient leaves bad lines out. A list that does not fit into the tables replaces none.";

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

    /// Longest silence of a running gateway. While it is at work on a long list it gives a sign of life now and then.
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,

    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,

    /// The state on disk turned out to be damaged: what was answered is known from the tables alone.
    #[arg(skip)]
    pub damaged: Cell<bool>,
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
    /// Make, list and revoke the keys of callers.
    #[command(after_help = "\
Examples:
  gateway key new partner-a --file /etc/gateway/keys.yaml --scope orders.read --ttl 365d
  gateway key list --file /etc/gateway/keys.yaml
  gateway key revoke --name partner-a --file /etc/gateway/keys.yaml
  gateway key hash-password < password.txt

A running gateway takes a change of the file up within seconds.")]
    Key {
        #[command(subcommand)]
        command: super::key::KeyCommand,
    },
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
  gateway deny add 198.51.100.0/24 --confirm 60s     undoes itself unless ...
  gateway deny confirm                               ... this comes within the time
  gateway deny del 203.0.113.7
  gateway deny import drop.txt        plain text, CSV or JSON; `-` reads standard input
  gateway deny import --replace feed.csv    the list in the place of the old one, at once
  gateway deny export > backup.txt    what `import` reads again")]
    Deny {
        #[command(subcommand)]
        command: DenyCommand,
    },

    /// Sources whose packets always pass. Allow wins over deny and block.
    #[command(after_help = "\
Examples:
  gateway allow add 10.0.0.0/8 --reason 'office'
  gateway allow import office.txt
  gateway allow list --json")]
    Allow {
        #[command(subcommand)]
        command: AllowCommand,
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

    /// Show drops as they happen: samples of them, live. The program writes none while nobody watches.
    #[command(after_help = "\
Examples:
  gateway watch                                   every sampled drop, a line each, until Ctrl-C
  gateway watch --reason denied --source 203.0.113.0/24
  gateway watch --count 1 --json                  wait for the next one
  gateway watch --top                             who is dropped most, each second
  gateway watch --top 50 --json --duration 10s    one JSON document each second

The true numbers are in `gateway status`: at most one drop in `xdp.events_every` is told of on each processor.")]
    Watch(WatchArgs),

    /// Have the running gateway read its configuration again. A faulty one changes nothing.
    Reload {
        /// Even if the new lists cut off the address that this is typed from.
        #[arg(long)]
        force: bool,
    },

    /// Let every packet pass for a time, loudly: for when the filter itself is suspected.
    #[command(after_help = "\
Examples:
  gateway bypass on --for 10m --reason 'is it the filter?'
  gateway bypass status
  gateway bypass off

The end stands in the kernel: it holds if the gateway dies, and a bypass does not outlive a reboot. Requests are still
routed and authenticated, and who misbehaves is still blocked, in force when the bypass ends.")]
    Bypass {
        #[command(subcommand)]
        command: BypassCommand,
    },

    /// Compare the kernel's tables with what should be in them, and repair what differs.
    #[command(after_help = "\
Examples:
  gateway verify
  gateway verify --json

Exit code 0: no difference; 1: drift was found, each difference says whether it is repaired; 5: nothing is attached.
A running gateway does the same every 30 seconds, logs what it finds and counts it (gateway_drift_repaired_total).")]
    Verify,

    /// Look whether this host and its interfaces are fit for the packet filter, and say what to do.
    #[command(after_help = "\
Examples:
  gateway doctor
  gateway doctor --json --config /etc/gateway/gateway.yaml

Each line is ok, warn (it works, but less well than it could) or FAIL (the filter does not work). Exit code 1 if one
fails. Changes nothing, and needs no running gateway.")]
    Doctor,

    /// Work with OpenAPI documents.
    Openapi {
        #[command(subcommand)]
        command: OpenapiCommand,
    },

    /// Take the packet filter out of the kernel: program, tables and pins. Commanded rules stay remembered on disk.
    Detach,
}

#[derive(Clone, Debug, Subcommand)]
pub enum OpenapiCommand {
    /// Write routes for the operations of a document (3.0 or 3.1), each held against it. What the document asks of callers becomes
    /// `auth`, with places for the operator's own keys and issuers. Operations that can have no route are named with the
    /// reason, and the exit code is 1; 2 if there is no other.
    Import {
        /// The document, in YAML or JSON. Its $refs lead to files beside and below it, and nowhere else.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Name of the upstream.
        #[arg(long, value_name = "NAME", default_value = "api", value_parser = upstream)]
        upstream: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum DenyCommand {
    /// Add networks, in force at once and remembered across restarts.
    Add(DenyArgs),
    /// Let denies stay that were added with --confirm; without a network, all that wait.
    Confirm {
        #[arg(value_name = "CIDR", value_parser = network)]
        nets: Vec<IpNet>,
    },
    #[command(flatten)]
    Rule(RuleCommand),
}

#[derive(Clone, Debug, Subcommand)]
pub enum AllowCommand {
    /// Add networks, in force at once and remembered across restarts.
    Add(AddArgs),
    #[command(flatten)]
    Rule(RuleCommand),
}

/// What is said of either list.
#[derive(Clone, Debug, Subcommand)]
pub enum RuleCommand {
    /// Remove networks that were added by command.
    #[command(alias = "delete", alias = "remove")]
    Del {
        #[arg(required = true, value_name = "CIDR", value_parser = network)]
        nets: Vec<IpNet>,
        /// Even if a deny cuts off the address that this is typed from then.
        #[arg(long)]
        force: bool,
    },
    /// Show every entry: from where it came, how long it lasts, how often it was met.
    List,
    /// Add networks from a file of plain text, CSV or JSON. Those that lie side by side or in each other are joined.
    #[command(after_help = IMPORT)]
    Import(ImportArgs),
    /// Print the commanded entries in the form that `import` reads.
    Export,
    /// Remove every entry that was added by command.
    Flush {
        /// Even if a deny cuts off the address that this is typed from then.
        #[arg(long)]
        force: bool,
    },
}

/// What can be said of a deny.
#[derive(Clone, Debug, clap::Args)]
pub struct DenyArgs {
    #[command(flatten)]
    pub add: AddArgs,
    /// Undo it after this time, such as 60s, unless `gateway deny confirm` comes before. The kernel keeps the time.
    #[arg(long, value_name = "TIME", value_parser = confirm)]
    pub confirm: Option<Duration>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BypassCommand {
    /// Let every packet pass.
    On {
        /// For how long, at most 24h. There is no bypass without an end.
        #[arg(long = "for", value_name = "TIME", value_parser = bypass_time)]
        lasts: Duration,
        /// Why, for those who see it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Filter again.
    Off,
    /// Say whether a bypass is on, until when and why.
    Status,
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
    /// Deny even this host's own addresses, default gateways, resolvers, SSH clients and trusted proxies.
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
        #[arg(required = true, value_name = "ADDR", value_parser = address)]
        addrs: Vec<IpAddr>,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// Only drops for this reason, as `gateway status` names it.
    #[arg(long, value_name = "NAME", value_parser = reason)]
    pub reason: Option<String>,
    /// Only drops of packets from this network.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub source: Option<IpNet>,
    /// End after so many drops.
    #[arg(long, value_name = "N", conflicts_with = "top", value_parser = count)]
    pub count: Option<NonZeroU64>,
    /// End after this time, such as 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = watch_time)]
    pub duration: Option<Duration>,
    /// Instead of single drops, show each second who was dropped most, and why.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = top)]
    pub top: Option<NonZeroU16>,
}

/// How long to wait for a gateway.
fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = time(text)?;
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        return Err("wait for more than nothing and at most 24h".to_owned());
    }
    Ok(timeout)
}

/// The name of an upstream.
fn upstream(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("letters, digits, hyphens, underscores and dots".to_owned())
}

/// Any length of time.
fn time(text: &str) -> Result<Duration, String> {
    crate::config::units::duration(text).map_err(|fault| fault.to_string())
}

/// A drop's reason by its name.
fn reason(text: &str) -> Result<String, String> {
    let names = DropReason::ALL.iter().map(|reason| reason.name());
    if names.clone().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let names: Vec<&str> = names.collect();
    Err(format!("no drop has this reason; they are {}", names.join(", ")))
}

/// A time after which something is left of the entry.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = crate::config::units::duration(text).map_err(|fault| fault.to_string())?;
    if ttl.is_zero() {
        return Err(
            "an entry that ends at once is none; leave --ttl out for an entry without an end".to_owned(),
        );
    }
    if ttl > LONGEST_TTL {
        return Err("3000d at most, as the kernel's tables count no further; leave --ttl out for an entry without an end".to_owned());
    }
    Ok(ttl)
}

/// A time in which a deny can be confirmed.
fn confirm(text: &str) -> Result<Duration, String> {
    let within = time(text)?;
    if within.is_zero() || within > LONGEST_CONFIRM {
        return Err("give yourself time to confirm it, such as 60s, and at most 24h; leave --confirm out for a deny that stays at once".to_owned());
    }
    Ok(within)
}

/// How many drops to show.
fn count(text: &str) -> Result<NonZeroU64, String> {
    text.parse()
        .map_err(|_| "a whole number from 1 on; leave --count out to go on until Ctrl-C".to_owned())
}

/// How many sources to show.
fn top(text: &str) -> Result<NonZeroU16, String> {
    text.parse()
        .map_err(|_| "a whole number from 1 to 65535".to_owned())
}

/// How long to watch.
fn watch_time(text: &str) -> Result<Duration, String> {
    let lasts = time(text)?;
    if lasts.is_zero() {
        return Err("watch for more than nothing; leave --duration out to go on until Ctrl-C".to_owned());
    }
    Ok(lasts)
}

/// A single address, as blocks are of.
fn address(text: &str) -> Result<IpAddr, String> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    match network(text) {
        Ok(net) if net.prefix_len() == net.max_prefix_len() => Ok(net.addr()),
        Ok(_) => Err(
            "a network, and blocks are of single addresses, which `gateway block list` shows; a network that is \
             denied is let go by `gateway deny del`"
                .to_owned(),
        ),
        Err(_) => Err("an address is written as 203.0.113.7 or 2001:db8::7".to_owned()),
    }
}

/// How long a bypass may last.
fn bypass_time(text: &str) -> Result<Duration, String> {
    let lasts = crate::config::units::duration(text).map_err(|fault| fault.to_string())?;
    if lasts.is_zero() || lasts > LONGEST_BYPASS {
        return Err("a bypass lasts more than nothing and at most 24h".to_owned());
    }
    Ok(lasts)
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
    fn the_default_timeout_is_the_client_s() {
        let args = Args::try_parse_from(["gateway", "status"]).expect("good words");
        assert_eq!(args.timeout, crate::admin::client::PATIENCE);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_what_would() {
        for (words, told) in [
            (&["watch", "--top", "0"][..], "a whole number from 1 to 65535"),
            (&["watch", "--top", "70000"], "a whole number from 1 to 65535"),
            (&["watch", "--duration", "0s"], "more than nothing"),
            (&["block", "del", "1.1.1.0/24"], "`gateway deny del`"),
            (&["block", "del", "1.1.1"], "203.0.113.7"),
        ] {
            let words = [&["gateway"], words].concat();
            let error = Args::try_parse_from(&words).expect_err("refused").to_string();
            assert!(error.contains(told), "{words:?}: {error}");
        }
        for words in [
            &["watch", "--top"][..],
            &["watch", "--top", "1", "--duration", "1ms"],
            &["block", "del", "1.1.1.1", "2001:db8::7", "1.1.1.1/32"],
        ] {
            let words = [&["gateway"], words].concat();
            assert!(Args::try_parse_from(&words).is_ok(), "{words:?}");
        }
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
