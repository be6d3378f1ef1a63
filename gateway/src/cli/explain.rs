//! `gateway explain`: an address through the packet policy, a URL through the router. The same deciders as in service.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, Method, Uri};
use serde::Serialize;

use super::args::Args;
use super::ask::{ask, load, unexpected};
use super::{Exit, Failed, Result, operator, print, print_json, render};
use crate::admin::api::{Answer, Request};
use crate::config::Config;
use crate::config::model::{Action, Auth, Endpoint, Paths, Place, Route, Way, Ways};
use crate::http::reject::Reject;
use crate::http::router::{Ask, Router};
use crate::http::{host, path};

pub fn run(args: &Args, what: &str, method: &str) -> Result<Exit> {
    if let Ok(addr) = what
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        return address(args, addr);
    }
    let uri: Uri = what.parse().map_err(|_| neither(what))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(neither(what));
    }
    let config = load(args)?;
    let explained = url(&config, &uri, method)?;
    if args.json {
        print_json(&explained)?
    } else {
        print(&explained.text(what))?
    }
    Ok(Exit::Done)
}

fn neither(what: &str) -> Failed {
    Failed::new(
        Exit::BadInput,
        format!(
            "{what:?} is neither an IP address nor a URL; write 203.0.113.7 or https://api.example.com/v1/orders"
        ),
    )
}

fn address(args: &Args, addr: IpAddr) -> Result<Exit> {
    let request = Request::Explain {
        addr,
        operators: operator::addresses(),
    };
    let Answer::Explained(explained) = ask(args, request)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&explained)?
    } else {
        print(&render::explained(&explained, &args.same_gateway()))?
    }
    Ok(Exit::Done)
}

/// What the configuration makes of a request.
#[derive(Debug, Serialize)]
struct Explained {
    method: String,
    host: String,
    /// The canonical path: what routes, logs and upstreams see.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Code of the refusal that is certain from the URL alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    reject: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Matched>,
}

#[derive(Debug, Serialize)]
struct Matched {
    name: String,
    /// `file:line`.
    source: String,
    pattern: String,
    auth: String,
    /// What the gateway answers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
}

fn url(config: &Config, uri: &Uri, method: &str) -> Result<Explained> {
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut explained = Explained {
        method: method.to_ascii_uppercase(),
        host: authority.clone(),
        path: None,
        reject: None,
        route: None,
    };
    let refused = |explained: Explained, reject: Reject| Explained {
        reject: Some(reject.code()),
        ..explained
    };
    let Ok(name) = host::name(&authority) else {
        return Ok(refused(explained, Reject::BadHost));
    };
    explained.host = name.to_string();
    if explained.method == "CONNECT" {
        return Ok(refused(explained, Reject::NotSupported));
    }
    let Ok(path) = path::canonical(uri.path(), paths(config, uri)) else {
        return Ok(refused(explained, Reject::BadPath));
    };
    explained.path = Some(path.to_string());
    let mut router = Router::default();
    for (index, route) in config.routes.iter().enumerate() {
        router.insert(&route.host, &route.path, &route.when, index);
    }
    let method = Method::from_bytes(explained.method.as_bytes())
        .map_err(|_| Failed::new(Exit::BadInput, format!("{method:?} is not a method")))?;
    let ask = Ask {
        method: &method,
        headers: &HeaderMap::new(),
        query: uri.query(),
        preflight: false,
    };
    match router.find(&name, &path, &ask) {
        Some(index) => explained.route = Some(matched(config, &config.routes[*index])),
        None if router.methods(&name, &path, &ask).is_empty() => {
            return Ok(refused(explained, Reject::NoRoute));
        }
        None => return Ok(refused(explained, Reject::MethodNotAllowed)),
    }
    Ok(explained)
}

/// As the listener has it that the URL's port is of.
fn paths(config: &Config, uri: &Uri) -> Paths {
    let standard = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(standard);
    let listener = config
        .listen
        .iter()
        .find(|listener| listener.address.port() == port);
    listener
        .and_then(|listener| listener.paths)
        .unwrap_or(config.paths)
}

fn matched(config: &Config, route: &Route) -> Matched {
    let upstream = route.action.upstream().map(|id| &config.upstreams[id.0]);
    let endpoints = upstream.map(|upstream| {
        let show = |endpoint: &Endpoint| format!("{} (weight {})", endpoint.address, endpoint.weight);
        upstream.endpoints.iter().map(show).collect()
    });
    Matched {
        name: route.name.clone(),
        source: route.source.clone(),
        pattern: route.path.pattern.clone(),
        auth: match &route.auth {
            None => "none".to_owned(),
            Some(auth) => described(auth),
        },
        answer: match &route.action {
            Action::Forward(_) => None,
            Action::Redirect(redirect) => Some(format!("a redirect, {}", redirect.status.as_u16())),
            Action::Respond(respond) => Some(format!("a fixed text, {}", respond.status.as_u16())),
        },
        upstream: upstream.map(|upstream| upstream.name.clone()),
        endpoints: endpoints.unwrap_or_default(),
    }
}

/// What a route asks for of its callers.
fn described(auth: &Auth) -> String {
    let place = |place: &Place| match place {
        Place::Header(name) => format!("in {name}"),
        Place::Bearer => "as a bearer token".to_owned(),
        Place::Query(name) => format!("in the query as {name}"),
        Place::Cookie(name) => format!("in the cookie {name}"),
    };
    let way = |way: &Way| match way {
        Way::ApiKey(keys) => format!("api key {}, {} known", place(&keys.place), keys.keys.len()),
        Way::Jwt(jwt) => format!(
            "jwt {}, issued by {}",
            place(&jwt.place),
            jwt.issuers.join(" or ")
        ),
        Way::Basic(basic) => format!("password, {} users", basic.users.len()),
        Way::ClientCertificate(_) => "client certificate".to_owned(),
        Way::Forward(forward) => format!("whom {} lets in", forward.service.url),
        Way::Signature(signature) => format!("signature of the request, {} keys", signature.keys.len()),
        Way::Introspect(token) => format!("token {} that {} knows", place(&token.place), token.service.url),
        Way::Oidc(oidc) => format!("log-in at {}", oidc.token.issuers.join(" or ")),
    };
    let ways: Vec<_> = auth.ways().iter().map(way).collect();
    let mut text = match (&auth.ways, ways.len()) {
        (_, 0) => "anyone".to_owned(),
        (Ways::Any(_), _) => ways.join("; or "),
        (Ways::All(_), _) => ways.join("; and "),
    };
    if !auth.authorize.is_empty() {
        let _ = write!(text, "; then {} rules", auth.authorize.len());
    }
    if auth.observe {
        text += "; only observed";
    }
    text
}

impl Explained {
    fn text(&self, typed: &str) -> String {
        let mut out = String::new();
        match (&self.route, self.reject) {
            (Some(route), _) => {
                let _ = writeln!(out, "{} {typed} takes the route {}", self.method, route.name);
                let _ = writeln!(out, "  matched: {} ({})", route.pattern, route.source);
                let _ = writeln!(
                    out,
                    "  host {}, path {}",
                    self.host,
                    self.path.as_deref().unwrap_or("-")
                );
                let _ = writeln!(out, "  authentication: {}", route.auth);
                if let Some(answer) = &route.answer {
                    let _ = writeln!(out, "  answered by the gateway: {answer}");
                }
                if let Some(upstream) = &route.upstream {
                    let _ = writeln!(out, "  upstream {upstream}: {}", route.endpoints.join(", "));
                }
            }
            (None, reject) => {
                let reject = reject.unwrap_or(Reject::NoRoute.code());
                let status = Reject::from_code(reject).map_or(0, |reject| reject.status().as_u16());
                let _ = writeln!(out, "{} {typed} is refused: {status} {reject}", self.method);
                let _ = writeln!(
                    out,
                    "  host {}, path {}",
                    self.host,
                    self.path.as_deref().unwrap_or("-")
                );
            }
        }
        out
    }
}
