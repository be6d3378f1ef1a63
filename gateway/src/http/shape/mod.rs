//! What is done with bodies as a whole: a step between admission and forwarding, and one before an answer is handed on.
//!
//! Only routes that ask for it come here, and only their bodies are held in memory, each up to a bound. Owns collecting, changing
//! and the header lines that go with it; the ways of changing are `json`, `form` and `page`. Knows no socket.

pub mod form;
pub mod json;
pub mod page;
pub mod strict;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use super::body::{Fault, Progress, RequestBody};
use super::coding::decode::{Broken, Decoder};
use super::coding::{self, OF_THE_BYTES};
use super::facts::Facts;
use super::filter::Exchange;
use super::reject::{At, Problem, Reject};
use crate::config::model::{BodyEdit, BodyForm, BodyMade, Fact, PathMatch, Route, WrongBody};
use crate::upstream::Lease;
use page::Page;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What a route does with bodies, compiled.
#[derive(Debug, Default)]
pub struct Whole {
    request: Option<Shaper>,
    response: Option<Shaper>,
}

#[derive(Debug)]
struct Shaper {
    edit: BodyEdit,
    page: Option<Page>,
}

/// Why a request goes no further.
#[derive(Debug)]
pub(super) enum Ended {
    Reject(Reject),
    /// The client went away in the middle of its body.
    Gone,
}

/// Why a body can not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    Json(json::Wrong),
    Form,
    Page,
}

impl Unfit {
    /// For the client.
    const fn detail(self) -> &'static str {
        match self {
            Self::Json(wrong) => wrong.detail(),
            Self::Form => "is not a form, or can not be one",
            Self::Page => "lacks what is made of it",
        }
    }
}

impl Whole {
    /// `None` if the route does nothing with bodies.
    #[must_use]
    pub fn compile(route: &Route) -> Option<Box<Self>> {
        let shaper = |edit: &Option<BodyEdit>| {
            edit.as_ref().map(|edit| Shaper {
                page: match &edit.to {
                    BodyMade::Page { source, content_type } => Page::compile(source, content_type),
                    BodyMade::Json | BodyMade::Form => None,
                },
                edit: edit.clone(),
            })
        };
        let whole = Self {
            request: shaper(&route.request_body),
            response: shaper(&route.response_body),
        };
        (whole.request.is_some() || whole.response.is_some()).then(|| Box::new(whole))
    }

    /// Cap in bytes on a request's body once it is made plain, if the route must see it so.
    #[must_use]
    pub fn decodes(&self) -> Option<u64> {
        self.request.as_ref().map(|shaper| shaper.edit.max_bytes)
    }

    /// Makes a request's body what the upstream is to get. `progress` is that of the body.
    pub(super) async fn request(
        &self,
        head: &mut request::Parts,
        body: RequestBody,
        progress: Option<&Progress>,
        exchange: &mut Exchange,
        pattern: &PathMatch,
    ) -> Result<RequestBody, Ended> {
        let (Some(shaper), false) = (&self.request, body.is_end_stream()) else {
            return Ok(body);
        };
        if !shaper.edit.from.is_of(&head.headers) {
            return Err(Ended::Reject(Reject::UnsupportedMediaType));
        }
        let bytes = collect(body, progress, shaper.edit.max_bytes).await?;
        let Some(kept) = &exchange.kept else {
            return Err(Ended::Reject(Reject::Internal));
        };
        match shaper.make(&bytes, &kept.facts(pattern), None) {
            Ok((made, kind)) => {
                relabel(&mut head.headers, made.len(), kind);
                Ok(RequestBody::Whole(Some(made)))
            }
            Err(unfit) => {
                let mut problem = Problem::default();
                problem.add(At::Body(""), unfit.detail());
                exchange.problem = Some(Box::new(problem));
                Err(Ended::Reject(Reject::BadBody))
            }
        }
    }

    /// Whether an answer has a body that is to be looked at.
    pub(super) fn wants(&self, exchange: &Exchange, head: &response::Parts) -> bool {
        let asked = exchange.kept.as_ref().map(|kept| kept.method());
        let bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        );
        let fits = |shaper: &Shaper| shaper.edit.from.is_of(&head.headers);
        asked.is_some_and(|method| *method != Method::HEAD)
            && !bodiless
            && !head.headers.contains_key(CONTENT_RANGE)
            && self.response.as_ref().is_some_and(fits)
    }

    /// Makes an answer's body what the client is to get.
    pub(super) async fn response(
        &self,
        head: &mut response::Parts,
        lease: &mut Lease<RequestBody>,
        pause: Duration,
        by: Option<Instant>,
        exchange: &Exchange,
        pattern: &PathMatch,
    ) -> Answer {
        let (Some(shaper), Some(kept)) = (&self.response, &exchange.kept) else {
            return Answer::Refused(Reject::Internal);
        };
        let passes = shaper.edit.wrong == WrongBody::Pass;
        let raw = match read(lease, shaper.edit.max_bytes, pause, by).await {
            Ok(raw) => raw,
            Err(Unread::Broke(reject)) => return Answer::Refused(reject),
            Err(Unread::TooLong(front)) if passes => return Answer::Begun(front),
            Err(Unread::TooLong(_)) => return Answer::Refused(Reject::ResponseInvalid),
        };
        let made = plain(&head.headers, &raw, shaper.edit.max_bytes)
            .and_then(|plain| shaper.make(&plain, &kept.facts(pattern), Some(head.status)).ok());
        match made {
            Some((made, kind)) => {
                relabel(&mut head.headers, made.len(), kind);
                Answer::Whole(made)
            }
            None if passes => Answer::Whole(raw),
            None => Answer::Refused(Reject::ResponseInvalid),
        }
    }
}

/// What came of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// All of it.
    Whole(Bytes),
    /// It is too long, and goes on as it is: what was read of it, and the rest.
    Begun(Bytes),
    Refused(Reject),
}

impl Shaper {
    /// The other body, and its type if it is another.
    fn make(
        &self,
        bytes: &[u8],
        facts: &Facts<'_>,
        status: Option<StatusCode>,
    ) -> Result<(Bytes, Option<HeaderValue>), Unfit> {
        let edit = &self.edit;
        let text = std::str::from_utf8(bytes).map_err(|_| Unfit::Json(json::Wrong::Syntax))?;
        let formed = match edit.from {
            BodyForm::Json => None,
            BodyForm::Form => Some(form::to_json(text).ok_or(Unfit::Form)?),
        };
        let text = formed.as_deref().unwrap_or(text);
        let fill = |template: &_| facts.fill(template);
        let edited = json::edit(text, &edit.edits, edit.max_depth, fill).map_err(Unfit::Json)?;
        let tree = || strict::parse(edited.as_bytes(), edit.max_depth).map_err(Unfit::Json);
        match (&edit.to, &self.page) {
            (BodyMade::Page { .. }, Some(page)) => {
                let most = usize::try_from(edit.max_bytes).unwrap_or(usize::MAX);
                let made = page.render(context(&tree()?, facts, status), most);
                let made = made.map_err(|error| {
                    tracing::debug!(%error, "no body was made");
                    Unfit::Page
                })?;
                Ok((Bytes::from(made), Some(page.content_type.clone())))
            }
            (BodyMade::Form, _) => {
                let made = form::of_json(&tree()?).ok_or(Unfit::Form)?;
                Ok((Bytes::from(made), Some(FORM)))
            }
            _ => Ok((Bytes::from(edited), formed.map(|_| JSON))),
        }
    }
}

impl BodyForm {
    /// Whether a message says that its body is of this form.
    fn is_of(self, headers: &HeaderMap) -> bool {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let essence = kind
            .and_then(|kind| kind.split(';').next())
            .unwrap_or_default()
            .trim();
        match self {
            Self::Json => is_json(essence),
            Self::Form => essence.eq_ignore_ascii_case("application/x-www-form-urlencoded"),
        }
    }
}

/// Whether a media type is JSON, by itself or by its suffix (RFC 6839, 3.1).
#[must_use]
pub fn is_json(essence: &str) -> bool {
    let suffix = essence
        .len()
        .checked_sub("+json".len())
        .and_then(|at| essence.get(at..));
    essence.eq_ignore_ascii_case("application/json")
        || suffix.is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// What templates of whole bodies may name.
fn context(body: &serde_json::Value, facts: &Facts<'_>, status: Option<StatusCode>) -> minijinja::Value {
    use minijinja::Value;
    use serde::Deserialize as _;
    let mut names: BTreeMap<&str, Value> = BTreeMap::new();
    names.insert("body", Value::deserialize(body).unwrap_or_default());
    let plain = [
        ("host", Fact::Host),
        ("client_ip", Fact::ClientIp),
        ("request_id", Fact::RequestId),
        ("method", Fact::Method),
        ("path", Fact::Path),
        ("query", Fact::Query),
        ("scheme", Fact::Scheme),
        ("identity", Fact::Identity),
        ("rest", Fact::Rest),
    ];
    for (name, fact) in plain {
        if let Some(value) = facts.get(&fact) {
            names.insert(name, Value::from(value.into_owned()));
        }
    }
    let claims = facts
        .identity
        .map(|identity| Value::deserialize(&identity.claims).unwrap_or_default());
    names.insert(
        "claims",
        claims.unwrap_or_else(|| Value::from(BTreeMap::<String, Value>::new())),
    );
    let captures = facts.pattern.captures();
    let captures = captures.filter_map(|name| {
        let value = facts.get(&Fact::Capture(name.to_owned()))?.into_owned();
        Some((name.to_owned(), Value::from(value)))
    });
    names.insert("captures", Value::from(captures.collect::<BTreeMap<_, _>>()));
    if let Some(status) = status {
        names.insert("status", Value::from(status.as_u16()));
    }
    Value::from(
        names
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
    )
}

/// Makes a header speak of a body that was made here.
fn relabel(headers: &mut HeaderMap, length: usize, kind: Option<HeaderValue>) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.remove(CONTENT_ENCODING);
    headers.remove(ACCEPT_RANGES);
    headers.remove(ETAG);
    for name in OF_THE_BYTES {
        headers.remove(name);
    }
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
    }
}

/// A request's body, whole.
async fn collect(mut body: RequestBody, progress: Option<&Progress>, most: u64) -> Result<Bytes, Ended> {
    if body.size_hint().lower() > most {
        return Err(Ended::Reject(Reject::BodyTooLarge));
    }
    let mut gathered = Gathered::default();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            return Err(match progress.and_then(Progress::fault) {
                Some(Fault::Gone) => Ended::Gone,
                Some(Fault::Reject(reject)) => Ended::Reject(reject),
                None => Ended::Reject(Reject::Internal),
            });
        };
        if let Ok(piece) = frame.into_data() {
            gathered.push(piece);
            if gathered.length() > most {
                return Err(Ended::Reject(Reject::BodyTooLarge));
            }
        }
    }
    Ok(gathered.whole())
}

/// Why an answer is not whole.
enum Unread {
    Broke(Reject),
    TooLong(Bytes),
}

/// An answer's body, whole, as it is sent.
async fn read(
    lease: &mut Lease<RequestBody>,
    most: u64,
    pause: Duration,
    by: Option<Instant>,
) -> Result<Bytes, Unread> {
    let mut gathered = Gathered::default();
    while !lease.is_read() {
        let until = Instant::now() + pause;
        let until = by.map_or(until, |by| by.min(until));
        let frame = match timeout_at(until, poll_fn(|cx| lease.poll_frame(cx))).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "response broke off");
                return Err(Unread::Broke(Reject::UpstreamMalformed));
            }
            Err(_) if by.is_some_and(|by| Instant::now() >= by) => {
                return Err(Unread::Broke(Reject::DeadlineExceeded));
            }
            Err(_) => return Err(Unread::Broke(Reject::UpstreamTimeout)),
        };
        if let Ok(piece) = frame.into_data() {
            gathered.push(piece);
            if gathered.length() > most {
                return Err(Unread::TooLong(gathered.whole()));
            }
        }
    }
    Ok(gathered.whole())
}

/// Pieces of a body; one alone is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn length(&self) -> u64 {
        (self.first.len() + self.more.len()) as u64
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}

/// A body without its content coding; `None` if it can not be made plain, or is too long.
fn plain(headers: &HeaderMap, raw: &Bytes, most: u64) -> Option<Bytes> {
    let Some(coding) = coding::of_request(headers).ok()? else {
        return Some(raw.clone());
    };
    let decode = || -> Result<Bytes, Broken> {
        let mut decoder = Decoder::new(coding, most).map_err(|_| Broken::Damaged)?;
        let mut out = BytesMut::from(&decoder.push(raw)?[..]);
        out.extend_from_slice(&decoder.finish()?);
        Ok(out.freeze())
    };
    decode().ok()
}
