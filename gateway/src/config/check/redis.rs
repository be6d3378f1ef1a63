//! `redis`: the server that gateways share limits through.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{files, label, listen, patterns, upstreams};
use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Redis, Secret, UpstreamTls};
use crate::config::scalar::within;
use crate::config::units;

/// Longer than this nobody should wait for a limit.
const LONGEST: Duration = Duration::from_secs(5);
const FORMS: &str = "redis://HOST, redis://HOST:PORT or redis://HOST:PORT/DATABASE; rediss:// with TLS";
/// Largest file of a password.
const MOST_PASSWORD: usize = 4096;

/// What a URL says.
struct Place {
    tls: bool,
    host: String,
    port: u16,
    database: i64,
}

pub(super) fn redis(walk: &mut Walk, top: &mut Table<'_>) -> Option<Arc<Redis>> {
    let field = top.get(walk, "redis")?;
    walk.table(&field, |walk, table| {
        let url = table.require(walk, "url", "such as redis://10.0.0.7:6379");
        let place = url.and_then(|field| walk.value(&field, place));
        let own_tls = table.get(walk, "tls");
        let tls = own_tls.as_ref().and_then(|field| walk.table(field, tls));
        if let (Some(field), Some(Place { tls: false, .. })) = (&own_tls, &place) {
            let wrong = Wrong::new("tls is without effect, as the server is not rediss://");
            walk.fault(field, wrong.hint("write url: rediss://HOST:PORT"));
        }
        let username = table.value(walk, "username", label(256));
        let password = table.get(walk, "password_file").and_then(|field| {
            let path = files::named(walk, &field)?;
            if !walk.opens_secrets {
                return None;
            }
            let read = password(&path).map_err(|wrong| walk.fault(&field, wrong)).ok();
            if read.is_some() {
                walk.files.push(path.display().to_string());
            }
            read
        });
        let time = within(
            Duration::from_millis(1)..=LONGEST,
            units::duration,
            units::show_duration,
        );
        let timeout = table.value_or(walk, "timeout", defaults::REDIS_TIMEOUT, time);
        let prefix = table.value_or(walk, "prefix", defaults::REDIS_PREFIX.to_owned(), label(128));
        let place = place?;
        Some(Arc::new(Redis {
            url: place.shown(),
            tls: place.tls.then(|| tls.unwrap_or_default()),
            host: place.host,
            port: place.port,
            database: place.database,
            username,
            password,
            timeout,
            prefix,
        }))
    })?
}

impl Place {
    /// For people.
    fn shown(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let Self {
            host, port, database, ..
        } = self;
        match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}/{database}"),
            false => format!("{scheme}://{host}:{port}/{database}"),
        }
    }
}

/// Whom to believe, under which name, and what to show of oneself.
fn tls(walk: &mut Walk, table: &mut Table<'_>) -> UpstreamTls {
    UpstreamTls {
        ca: table
            .get(walk, "ca")
            .and_then(|field| upstreams::authorities(walk, &field)),
        server_name: table.value(walk, "server_name", patterns::dns_name),
        certificate: table
            .get(walk, "certificate")
            .and_then(|field| listen::certificate(walk, &field)),
        insecure_skip_verify: false,
    }
}

fn place(text: &str) -> Result<Place, Wrong> {
    let refuse =
        |hint: &str| Err(Wrong::new(format!("{} is not the URL of a server", quote(text))).hint(hint));
    let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return refuse(FORMS),
    };
    if rest.contains('@') {
        return refuse("name and password stand in username and password_file");
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, "0"));
    let database = if database.is_empty() { "0" } else { database };
    let Ok(database) = database.parse::<u16>() else {
        return refuse("behind the / stands the number of a database");
    };
    let Some(parsed) = authority
        .parse::<http::uri::Authority>()
        .ok()
        .filter(|at| !at.host().is_empty())
    else {
        return refuse(FORMS);
    };
    Ok(Place {
        tls,
        host: parsed
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port: parsed.port_u16().unwrap_or(defaults::REDIS_PORT),
        database: database.into(),
    })
}

/// The first line, as editors end the last one.
fn password(path: &Path) -> Result<Secret, Wrong> {
    let text = files::read_text(path, MOST_PASSWORD)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Wrong::new("the file holds no password"));
    }
    Ok(Secret::from(line.to_owned()))
}
