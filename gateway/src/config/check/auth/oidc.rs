//! `oidc`: where browsers log in, and what is kept of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{claim_name, jwt, one_or_more, scope, service};
use crate::config::check::{files, upstreams};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    Algorithm, Attribute, Auth, HostMatch, Jwt, Oidc, OidcSession, PathMatch, Place, Route, Secret, Segment,
    Shape, TokenAuth, Way,
};
use crate::config::scalar::{choice, truth, within};
use crate::config::units;

/// Most keys of sessions: one in use, one that comes, and some that go.
const MOST_KEYS: usize = 8;
/// Least bytes of one of them, as written.
const KEY: std::ops::RangeInclusive<usize> = 32..=1_024;
/// Most claims that a session keeps, and most parameters.
const MOST: usize = 32;
/// What the gateway itself says to the provider.
const OURS: [&str; 10] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
];

pub(super) fn oidc(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let issuer = table.require(walk, "issuer", "such as issuer: https://idp.example.com");
        let source = issuer.and_then(|field| {
            let issuer = walk.value(&field, jwt::text)?;
            jwt::discovered(walk, &field, &[issuer])
        });
        let ca = table.get(walk, "ca").and_then(|field| service::ca(walk, &field));
        let range = Duration::from_millis(100)..=Duration::from_secs(30);
        let timeout = within(range, units::duration, units::show_duration);
        let timeout = table.value_or(walk, "timeout", defaults::OIDC_TIMEOUT, timeout);
        let id = table.require(walk, "client_id", "as whom the provider knows the gateway");
        let id = id.and_then(|field| walk.value(&field, jwt::text));
        let client_secret = table
            .get(walk, "client_secret")
            .map(|field| secret(walk, &field).unwrap_or_default());
        let ways = [("basic", TokenAuth::Basic), ("post", TokenAuth::Post)];
        let client_auth = table.value_or(walk, "client_auth", TokenAuth::default(), choice(&ways));
        let scopes = table.get(walk, "scopes");
        let mut scopes = scopes
            .map(|field| one_or_more(walk, &field, scope))
            .unwrap_or_default();
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        let parameters = parameters(walk, table);
        let callback = table.value_or(walk, "callback", defaults::OIDC_CALLBACK.to_owned(), path);
        let logout = table.value(walk, "logout", path);
        let after_logout = table.value_or(walk, "after_logout", "/".to_owned(), path);
        if logout
            .as_ref()
            .is_some_and(|logout| [&callback, &after_logout].contains(&logout))
        {
            let wrong = Wrong::new("logout is the same path as callback or after_logout");
            walk.fault(&table.field, wrong.hint("give each a path of its own"));
        }
        let end_session = table.value_or(walk, "end_session", false, truth);
        let algorithms = table.get(walk, "algorithms");
        let algorithms = match algorithms {
            Some(field) => one_or_more(walk, &field, algorithm),
            None => public().map(|(_, algorithm)| algorithm).collect(),
        };
        let seconds = within(
            Duration::ZERO..=defaults::MOST_LEEWAY,
            units::duration,
            units::show_duration,
        );
        let leeway = table
            .value_or(walk, "leeway", defaults::LEEWAY, seconds)
            .as_secs();
        let name_claim = table.value_or(walk, "name", "sub".to_owned(), claim_name);
        let claims = table.get(walk, "claims").map(|field| {
            let claims = one_or_more(walk, &field, claim_name);
            if claims.len() > MOST {
                walk.fault(&field, Wrong::new(format!("more than {MOST} claims")));
            }
            claims
        });
        let session = table.require(walk, "session", "such as {keys: {file: session.keys}}");
        let session = session.and_then(|field| walk.table(&field, session_of)?);
        let (mut source, id, session) = (source?, id?, session?);
        source.ca = ca;
        source.timeout = timeout;
        Some(Way::Oidc(Box::new(Oidc {
            token: Jwt {
                // It comes from the provider, and is never looked for in a request.
                place: Place::Bearer,
                keep: true,
                issuers: source.discover.iter().cloned().collect(),
                audiences: Some(vec![id.clone()]),
                algorithms,
                keys: Vec::new(),
                published: Some(source),
                leeway,
                require: ["sub", "iat"].map(str::to_owned).into(),
                name_claim,
                scope_claim: "scope".to_owned(),
                scopes: Vec::new(),
                claims: Vec::new(),
            },
            client_id: id,
            client_secret,
            client_auth,
            timeout,
            scopes,
            parameters,
            callback,
            logout,
            after_logout,
            end_session,
            claims: claims.unwrap_or_default(),
            session,
        })))
    })?
}

fn session_of(walk: &mut Walk, table: &mut Table<'_>) -> Option<OidcSession> {
    let keys = table.require(walk, "keys", "such as {file: session.keys}");
    let keys = keys.and_then(|field| {
        let read = walk.table(&field, |walk, table| {
            let field = table.require(walk, "file", "such as {file: session.keys}")?;
            keys_of(walk, &field)
        });
        read.flatten()
    });
    let cookie = defaults::OIDC_COOKIE.to_owned();
    let cookie = table.value_or(walk, "cookie", cookie, |text| {
        if text.starts_with("__") {
            let wrong = Wrong::new(format!("{} begins like the prefix of a browser", quote(text)));
            return Err(wrong.hint("leave __Host- out: with TLS the gateway writes it"));
        }
        upstreams::cookie(text)
    });
    let time = |low| {
        let range = Duration::from_secs(low)..=Duration::from_secs(90 * 86_400);
        within(range, units::duration, units::show_duration)
    };
    let idle = table
        .value_or(walk, "idle", defaults::OIDC_IDLE, time(1))
        .as_secs();
    let lifetime = table
        .value_or(walk, "lifetime", defaults::OIDC_LIFETIME, time(1))
        .as_secs();
    let refresh = table.value_or(walk, "refresh", false, truth);
    Some(OidcSession {
        cookie,
        keys: keys?,
        idle: idle.min(lifetime),
        lifetime,
        refresh,
    })
}

/// Keys in a file, one a line.
fn keys_of(walk: &mut Walk, field: &Field<'_>) -> Option<Vec<Secret>> {
    let path = files::named(walk, field)?;
    if !walk.opens_secrets {
        return Some(Vec::new());
    }
    let hint = "one key a line, the first is for new sessions; make one with: openssl rand -base64 48";
    let read = files::read_text(&path, 64 << 10).and_then(|text| {
        let lines = text.lines().map(str::trim);
        let keys: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        if let Some(short) = keys.iter().position(|key| !KEY.contains(&key.len())) {
            let (least, most) = (KEY.start(), KEY.end());
            return Err(Wrong::new(format!(
                "key {} of {} has not {least} to {most} bytes",
                short + 1,
                quote(&path.to_string_lossy()),
            )));
        }
        if !(1..=MOST_KEYS).contains(&keys.len()) {
            return Err(Wrong::new(format!(
                "{} holds {} keys; expected 1 to {MOST_KEYS}",
                quote(&path.to_string_lossy()),
                keys.len()
            )));
        }
        Ok(keys.into_iter().map(|key| Secret::from(key.to_owned())).collect())
    });
    match read {
        Ok(keys) => Some(keys),
        Err(wrong) => {
            walk.fault(field, wrong.hint(hint));
            None
        }
    }
}

fn secret(walk: &mut Walk, field: &Field<'_>) -> Option<Secret> {
    walk.table(field, |walk, table| {
        let field = table.require(walk, "file", "such as {file: oidc.secret}")?;
        let path = files::named(walk, &field)?;
        if !walk.opens_secrets {
            return None;
        }
        let read =
            files::read_text(&path, 4_096).and_then(|text| match text.trim_end_matches(['\r', '\n']) {
                "" => Err(Wrong::new(format!("{} is empty", quote(&path.to_string_lossy())))
                    .hint("leave client_secret out for a public client")),
                text => Ok(Secret::from(text.to_owned())),
            });
        match read {
            Ok(secret) => Some(secret),
            Err(wrong) => {
                walk.fault(&field, wrong);
                None
            }
        }
    })?
}

fn parameters(walk: &mut Walk, table: &mut Table<'_>) -> Vec<(String, String)> {
    let Some(field) = table.get(walk, "parameters") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (key, field) in walk.entries(&field) {
        if OURS.contains(&key.text) || jwt::text(key.text).is_err() {
            let wrong = Wrong::new(format!("{} is not for the configuration to say", quote(key.text)));
            walk.fault_key(
                &field,
                &key,
                wrong.hint("such as prompt, audience, resource, acr_values, domain_hint"),
            );
        }
        let value = walk.value(&field, jwt::text);
        all.extend(value.map(|value| (key.text.to_owned(), value)));
    }
    if all.len() > MOST {
        walk.fault(&field, Wrong::new(format!("more than {MOST} parameters")));
    }
    all
}

/// Algorithms whose keys can be published.
fn public() -> impl Iterator<Item = (&'static str, Algorithm)> {
    Algorithm::ALL
        .into_iter()
        .filter(|(_, algorithm)| algorithm.verifier().is_some())
}

fn algorithm(text: &str) -> Result<Algorithm, Wrong> {
    let names: Vec<_> = public().map(|(name, _)| name).collect();
    public().find(|(name, _)| *name == text).map_or_else(
        || {
            let wrong = Wrong::new(format!("{} is not an algorithm with public keys", quote(text)));
            Err(wrong.hint(format!("one of {}", names.join(", "))))
        },
        |(_, algorithm)| Ok(algorithm),
    )
}

/// A path in the one form that requests are compared in: letters, digits and `-._~` between single slashes.
fn path(text: &str) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let good = |segment: &str| segment != "." && segment != ".." && segment.bytes().all(plain);
    let mut segments = text.split('/');
    let begins = segments.next() == Some("");
    let body = text.trim_start_matches('/').trim_end_matches('/');
    let doubled = text.contains("//");
    if begins && !doubled && text.len() <= 512 && body.split('/').all(good) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not such a path", quote(text)))
        .hint("such as /oauth2/callback: letters, digits and -._~ between slashes"))
}

/// Says which routes send browsers to log in where no route takes them back, and which paths that end sessions are not served.
pub(in crate::config::check) fn reached(walk: &mut Walk, routes: &[(Arc<Route>, Field<'_>)]) {
    let mut told: Vec<&Arc<Auth>> = Vec::new();
    for (route, field) in routes {
        let Some(auth) = route.auth.as_ref().filter(|auth| !told.contains(auth)) else {
            continue;
        };
        for way in auth.ways() {
            let Way::Oidc(oidc) = way else { continue };
            let paths = [Some(&oidc.callback), oidc.logout.as_ref()];
            for (path, key) in paths.into_iter().zip(["callback", "logout"]) {
                let Some(path) = path else { continue };
                let takes = |(other, _): &(Arc<Route>, Field<'_>)| {
                    other.auth.as_ref() == Some(auth)
                        && covers(&other.host, &route.host)
                        && takes(&other.path, path)
                };
                if routes.iter().any(takes) {
                    continue;
                }
                told.push(auth);
                let wrong = Wrong::new(format!(
                    "no route of this host with the same auth takes its {key}, {path}"
                ));
                let hint =
                    format!("add one: {{match: {{path: {path}}}, auth: the same, respond: {{status: 404}}}}");
                walk.fault(field, wrong.hint(hint));
            }
        }
    }
}

fn covers(host: &HostMatch, other: &HostMatch) -> bool {
    match (host, other) {
        (HostMatch::Any, _) => true,
        (HostMatch::Suffix(end), HostMatch::Exact(name)) => name
            .strip_suffix(end.as_str())
            .is_some_and(|rest| rest.ends_with('.')),
        _ => host == other,
    }
}

fn takes(pattern: &PathMatch, path: &str) -> bool {
    let Shape::Segments { segments, prefix } = &pattern.shape else {
        // What the text of a pattern covers is its own matter.
        return true;
    };
    let path: Vec<_> = path
        .split('/')
        .skip(1)
        .filter(|segment| !segment.is_empty())
        .collect();
    let fits = |(segment, text): (&Segment, &&str)| match segment {
        Segment::Literal(own) => own == text,
        Segment::Capture(_) | Segment::Glob => true,
    };
    let long = path.len() == segments.len() || *prefix && path.len() > segments.len();
    long && segments.iter().zip(&path).all(fits)
}

/// Warns of claims that are spoken of and that a session does not keep.
pub(super) fn unkept(walk: &mut Walk, field: &Field<'_>, auth: &Auth) {
    let kept: Option<Vec<&Vec<String>>> = auth
        .ways()
        .iter()
        .map(|way| match way {
            Way::Oidc(oidc) => Some(&oidc.claims),
            // It may vouch for anything.
            _ => None,
        })
        .collect();
    let Some(kept) = kept.filter(|kept| !kept.is_empty()) else {
        return;
    };
    let granted = auth.authorize.iter().flat_map(|grant| &grant.claims);
    let passed = auth.pass.iter().filter_map(|(_, fact)| match fact {
        Attribute::Claim(claim) => Some(claim),
        _ => None,
    });
    let spoken: BTreeSet<_> = granted.map(|wanted| &wanted.claim).chain(passed).collect();
    for claim in spoken {
        let below = |own: &String| {
            claim
                .strip_prefix(own.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !kept.iter().any(|claims| claims.iter().any(below)) {
            let wrong = Wrong::new(format!("a session does not keep the claim {}", quote(claim)));
            walk.warn(field, wrong.hint("list it in oidc.claims"));
        }
    }
}
