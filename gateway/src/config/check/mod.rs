//! From the raw tree to the model: what every setting means and what it may be.
//!
//! Owns the keys and their ranges, a file for each part of the configuration. Goes on after a fault with the default in
//! its place, so that one report holds them all; the model is only handed out if there was none.

mod actions;
pub(super) mod auth;
mod bodies;
mod coding;
mod conflicts;
mod cors;
mod errors;
pub(super) mod files;
mod headers;
mod limits;
mod listen;
pub(super) mod lists;
mod matches;
mod messages;
mod packets;
mod patterns;
mod quota;
mod rate;
mod redis;
mod rewrite;
mod routes;
pub(super) mod strikes;
mod upstreams;
mod validate;
mod values;
mod xdp;

use std::num::NonZeroU32;

use tracing_subscriber::EnvFilter;

use super::decode::{Field, Table, Walk};
use super::defaults;
use super::fault::{Wrong, nearest, quote};
use super::model::{Config, ForwardingHeader, Log, LogFormat, Paths};
use super::raw::Value;
use super::scalar::{choice, number, truth};

/// Reads a whole configuration. `None` if the top is not even a mapping.
pub(super) fn config(walk: &mut Walk, root: &Field<'_>) -> Option<Config> {
    if root.node.value == Value::Null {
        walk.fault(
            root,
            Wrong::new("the configuration is empty").hint("config/minimal.yaml is a start"),
        );
        return None;
    }
    walk.table(root, |walk, top| {
        let paths = paths(walk, top, Paths::default()).unwrap_or_default();
        let (listen, proxied) = listen::listeners(walk, top, paths);
        let admin = listen::admin(walk, top, &listen);
        let trusted_proxies = lists::networks(walk, top, "trusted_proxies");
        let forwarding_header = top.value_or(
            walk,
            "forwarding_header",
            ForwardingHeader::default(),
            choice(&FORWARDING_HEADERS),
        );
        let errors = errors::errors(walk, top);
        if let (Some(field), false) = (
            &proxied,
            top.has("trusted_proxies") && !trusted_proxies.is_empty(),
        ) {
            let wrong =
                Wrong::new("no proxy is trusted, so every connection to this listener would be closed");
            walk.fault(
                field,
                wrong.hint("list the networks of the proxies in trusted_proxies"),
            );
        }
        let xdp = xdp::xdp(walk, top);
        packets::cookies_fit(walk, &top.field, &xdp, &listen);
        let strikes = strikes::strikes(walk, top);
        let limits = limits::limits(walk, top);
        let mut upstreams = upstreams::named(walk, top);
        let redis = redis::redis(walk, top);
        let mut shared = rate::named(walk, top, redis.as_ref());
        let routes = routes::routes(walk, top, &mut upstreams, &mut shared);
        shared.finish(walk, &top.field);
        if !listen.is_empty() && routes.is_empty() && !top.has("routes") {
            let wrong = Wrong::new("there are listeners and no routes: every request will be refused");
            walk.warn(&top.field, wrong.hint("add routes"));
        }
        if listen.is_empty() && !routes.is_empty() {
            let wrong = Wrong::new("there are routes and no listeners: no request can arrive");
            walk.warn(&top.field, wrong.hint("add listen"));
        }
        Config {
            listen,
            admin,
            trusted_proxies,
            forwarding_header,
            paths,
            errors,
            xdp,
            strikes,
            limits,
            redis,
            upstreams: upstreams.finish(walk),
            routes,
            log: log(walk, top),
            state_dir: top.value_or(walk, "state_dir", defaults::STATE_DIR.into(), files::absolute),
            workers: top
                .value(walk, "workers", number(1..=1024))
                .and_then(NonZeroU32::new)
                .unwrap_or_else(defaults::workers),
            watch_files: top.value_or(walk, "watch_files", false, truth),
            sources: walk.files.iter().map(Into::into).collect(),
        }
    })
}

const FORWARDING_HEADERS: [(&str, ForwardingHeader); 2] = [
    ("x-forwarded-for", ForwardingHeader::XForwardedFor),
    ("forwarded", ForwardingHeader::Forwarded),
];

/// `paths` of the whole or of a listener; what it does not say is as in `standard`.
fn paths(walk: &mut Walk, above: &mut Table<'_>, standard: Paths) -> Option<Paths> {
    let keep = choice(&[("refuse", false), ("keep", true)]);
    let refuse = choice(&[("keep", false), ("refuse", true)]);
    let field = above.get(walk, "paths")?;
    walk.table(&field, |walk, table| Paths {
        keep_encoded_slashes: table.value_or(walk, "encoded_slashes", standard.keep_encoded_slashes, keep),
        refuse_parameters: table.value_or(walk, "parameters", standard.refuse_parameters, refuse),
    })
}

fn log(walk: &mut Walk, top: &mut Table<'_>) -> Log {
    let standard = defaults::log();
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let read = top.get(walk, "log").and_then(|field| {
        walk.table(&field, |walk, table| Log {
            level: table.value_or(walk, "level", standard.level.clone(), level),
            format: table.value_or(walk, "format", standard.format, choice(&formats)),
            access: table.value_or(walk, "access", standard.access, truth),
        })
    });
    read.unwrap_or(standard)
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A filter that `tracing` will take later.
///
/// To `tracing` a bare word that is no level is the name of a target, and all others are silent: a level that is
/// misspelt would turn the log off.
fn level(text: &str) -> Result<String, Wrong> {
    let refuse = || {
        Wrong::new(format!("{} is not a log filter", quote(text)))
            .hint("write error, warn, info, debug or trace, or such as info,gateway=debug")
    };
    if text.len() > 1024 || text.trim().is_empty() {
        return Err(refuse());
    }
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    // A part with `[` selects by span and field; there a comma need not part anything.
    for part in text.split(',').filter(|_| !text.contains('[')) {
        let word = part.trim();
        let word = word.rsplit_once('=').map_or(word, |(_, level)| level.trim());
        if !is_level(word) {
            return Err(match nearest(word, LEVELS) {
                Some(level) => Wrong::new(format!("{} is not a level", quote(word)))
                    .hint(format!("did you mean {}?", quote(level))),
                None => refuse(),
            });
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|_| refuse())
}

/// A name that people and metrics use: printable ASCII without blanks or quotes.
fn label(most: usize) -> impl Fn(&str) -> Result<String, Wrong> {
    move |text| {
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'`');
        if !text.is_empty() && text.len() <= most && text.bytes().all(fits) {
            return Ok(text.to_owned());
        }
        let hint = format!("1 to {most} letters, digits and signs, no blanks and no quotes");
        Err(Wrong::new(format!("{} is not a name", quote(text))).hint(hint))
    }
}
