//! `cors` of a route: which scripts of other origins may read its answers.

use http::Method;

use super::{headers, matches, patterns};
use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Cors, HostMatch, Origin};
use crate::config::scalar::{truth, within};
use crate::config::units;

const MOST_ORIGINS: usize = 64;

pub(super) fn cors(walk: &mut Walk, route: &mut Table<'_>) -> Option<Cors> {
    let field = route.get(walk, "cors")?;
    walk.table(&field, |walk, table| {
        let origins = origins(walk, table)?;
        let methods = if table.has("methods") {
            matches::methods(walk, table, "methods")
        } else {
            let _ = table.get(walk, "methods");
            vec![Method::GET, Method::HEAD, Method::POST]
        };
        let mut names = |walk: &mut Walk, key| {
            let items = table.list(walk, key);
            let read = items.iter().filter_map(|item| walk.value(item, headers::name));
            read.collect::<Vec<_>>()
        };
        let (headers, expose) = (names(walk, "headers"), names(walk, "expose"));
        let credentials = table.value_or(walk, "credentials", false, truth);
        if credentials && origins.contains(&Origin::Any) {
            let wrong = Wrong::new("with credentials, \"*\" would let every site act as its visitors");
            walk.fault(&table.field, wrong.hint("name the origins (Fetch, 3.2.5)"));
        }
        let age = within(
            std::time::Duration::ZERO..=std::time::Duration::from_secs(86_400),
            units::duration,
            units::show_duration,
        );
        let max_age = table.value(walk, "max_age", age).map(|age| age.as_secs());
        Some(Cors {
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age: max_age
                .and_then(|age| u32::try_from(age).ok())
                .unwrap_or(defaults::CORS_MAX_AGE),
        })
    })?
}

fn origins(walk: &mut Walk, table: &mut Table<'_>) -> Option<Vec<Origin>> {
    let field = table.require(walk, "origins", "such as origins: [https://app.example.com]")?;
    let items = walk.list(&field);
    let mut origins: Vec<Origin> = Vec::new();
    for item in &items {
        let Some(origin) = walk.value(item, origin) else {
            continue;
        };
        if origins.contains(&origin) {
            walk.fault(item, Wrong::new("this origin is given twice"));
        }
        origins.push(origin);
    }
    if items.is_empty() || items.len() > MOST_ORIGINS {
        walk.fault(
            &field,
            Wrong::new(format!("1 to {MOST_ORIGINS} origins are needed")),
        );
    }
    Some(origins)
}

fn origin(text: &str) -> Result<Origin, Wrong> {
    if text == "*" {
        return Ok(Origin::Any);
    }
    let refuse = || Wrong::new(format!("{} is not an origin", quote(text)));
    let hint = "such as https://app.example.com, \"https://*.example.com\" or \"*\": scheme, host, and a port that \
                is not the scheme's own, as browsers send it";
    let (scheme, authority) = text.split_once("://").ok_or_else(|| refuse().hint(hint))?;
    let own_port = match scheme {
        "https" => "443",
        "http" => "80",
        _ => return Err(refuse().hint(hint)),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let good_port = |port: &str| {
        let digits = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        digits && port != own_port && port.parse::<u16>().is_ok()
    };
    if !port.is_none_or(good_port) {
        return Err(refuse().hint(hint));
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match patterns::host(host).map_err(|_| refuse().hint(hint))? {
        HostMatch::Exact(host) => Ok(Origin::Exact(format!("{scheme}://{host}{port}"))),
        HostMatch::Suffix(host) => Ok(Origin::Below {
            scheme: format!("{scheme}://"),
            suffix: format!(".{host}{port}"),
        }),
        HostMatch::Any => Err(refuse().hint(hint)),
    }
}
