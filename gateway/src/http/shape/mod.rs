//! What is done with bodies as a whole: a step between admission and forwarding, and one before an answer is handed on.
//!
//! Only routes that ask for it come here, and only their bodies are held in memory, each up to a bound. Owns collecting, changing
//! and the header lines that go with it; the ways of changing are `json`, `form` and `page`. Knows no socket.

pub mod form;
pub(super) mod gather;
pub mod json;
mod kind;
pub mod page;
pub mod strict;
mod validate;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::{Progress, RequestBody};
use super::coding::OF_THE_BYTES;
use super::facts::Facts;
use super::filter::Exchange;
use super::held::{Held, HeldBytes};
use super::reject::{At, Problem, Reject};
use crate::config::model::{
    BodyEdit, BodyForm, BodyMade, Fact, PathMatch, ResponseCheck, Route, Validate, WrongBody,
};
use crate::config::openapi::Operation;
use crate::upstream::Lease;
use gather::{Unread, collect, plain, read};
use kind::{Kind, is_form, is_json};
use page::Page;
use validate::{Todo, Wrong};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static(kind::URLENCODED);

/// What a route does with bodies, compiled.
#[derive(Debug, Default)]
pub struct Whole {
    request: Option<Shaper>,
    response: Option<Shaper>,
    validate: Option<Validate>,
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

/// What the edits of a route make of an answer.
enum Edits<'w> {
    /// It goes on as it is.
    Nothing,
    By(&'w Shaper),
    /// Whether they are for it can not be told, or can not be done.
    Refuse,
}

/// Why a body can not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    Json(json::Wrong),
    Form(form::Wrong),
    /// A form can not be made of it.
    NoForm,
    Page,
    /// The template ran on, or is wrong: no fault of who sent the body.
    Template,
}

impl Unfit {
    /// For the client.
    const fn detail(self) -> &'static str {
        match self {
            Self::Json(wrong) => wrong.detail(),
            Self::Form(wrong) => wrong.detail(),
            Self::NoForm => "can not be made a form, as it is not flat",
            Self::Page | Self::Template => "lacks what is made of it",
        }
    }
}

impl Whole {
    /// `None` if the route does nothing with bodies.
    #[must_use]
    pub fn compile(route: &Route) -> Option<Box<Self>> {
        let shaper = |edit: Option<&BodyEdit>| {
            edit.map(|edit| Shaper {
                page: match &edit.to {
                    BodyMade::Page { source, content_type } => Page::compile(source, content_type),
                    BodyMade::Json | BodyMade::Form => None,
                },
                edit: edit.clone(),
            })
        };
        let whole = Self {
            request: shaper(route.request_body.as_deref()),
            response: shaper(route.response_body.as_deref()),
            validate: route.validate.as_deref().cloned(),
        };
        let any = whole.request.is_some() || whole.response.is_some() || whole.validate.is_some();
        any.then(|| Box::new(whole))
    }

    /// Cap in bytes on a request's body once it is made plain, if the route must see it so.
    #[must_use]
    pub fn decodes(&self) -> Option<u64> {
        let edited = self.request.as_ref().map(|shaper| shaper.edit.max_bytes);
        // Who only observes changes nothing, not even the coding.
        let validate = self.validate.as_ref().filter(|rule| !rule.observe);
        edited
            .into_iter()
            .chain(validate.map(|rule| rule.max_bytes))
            .max()
    }

    /// Holds a request against its description, and makes its body what the upstream is to get. `progress` is that of the body.
    pub(super) async fn request(
        &self,
        head: &mut request::Parts,
        body: RequestBody,
        progress: Option<&Progress>,
        facts: &mut super::prepare::Facts,
        pattern: &PathMatch,
    ) -> Result<RequestBody, Ended> {
        let has_body = !body.is_end_stream();
        let kept = facts
            .exchange
            .kept
            .take()
            .ok_or(Ended::Reject(Reject::Internal))?;
        let mut todo = Todo::Nothing;
        if let Some(rule) = &self.validate {
            match validate::head(rule, &kept.facts(pattern), has_body) {
                Ok((operation, found)) => {
                    facts.exchange.operation = Some(operation);
                    todo = found;
                }
                Err(wrong) => self.wrong(rule, wrong, facts)?,
            }
        }
        if self.needs_whole(&facts.exchange) {
            // Of a part nothing can be told, so none is asked for.
            head.headers.remove(RANGE);
            head.headers.remove(IF_RANGE);
        }
        // A form without a field has no bytes, and is one all the same.
        let empty_form = |shaper: &Shaper| {
            shaper.edit.from == BodyForm::Form
                && head.headers.contains_key(CONTENT_LENGTH)
                && BodyForm::Form.is_of(&Kind::of(&head.headers))
        };
        let shaper = self
            .request
            .as_ref()
            .filter(|shaper| has_body || empty_form(shaper));
        if shaper.is_some_and(|shaper| !shaper.edit.from.is_of(&Kind::of(&head.headers))) {
            return Err(Ended::Reject(Reject::UnsupportedMediaType));
        }
        let mut held = Held::of(facts.exchange.client.effective());
        let looks = match &self.validate {
            Some(rule) if !matches!(todo, Todo::Nothing) => {
                !rule.observe || shaper.is_some() || fits(rule, head, &body, &mut held)
            }
            _ => false,
        };
        if shaper.is_none() && !looks {
            facts.exchange.kept = Some(kept);
            return Ok(body);
        }
        let bounds = [
            shaper.map(|shaper| shaper.edit.max_bytes),
            self.validate
                .as_ref()
                .filter(|_| looks)
                .map(|rule| rule.max_bytes),
        ];
        let most = bounds.into_iter().flatten().min().unwrap_or_default();
        let held = collect(body, progress, most, held).await?;
        if let Some(rule) = self.validate.as_ref().filter(|_| looks)
            && let Err(wrong) = validate::body(&todo, held.bytes(), rule.max_depth)
        {
            self.wrong(rule, wrong, facts)?;
        }
        let made = shaper.map(|shaper| shaper.make(held.bytes(), &kept.facts(pattern), None));
        facts.exchange.kept = Some(kept);
        match made {
            None => Ok(RequestBody::Whole(Some(held.into_bytes()))),
            Some(Ok((made, kind))) => {
                relabel(&mut head.headers, Some(made.len()), kind);
                let held = held.replace(made).ok_or(Ended::Reject(Reject::Overloaded))?;
                Ok(RequestBody::Whole(Some(held.into_bytes())))
            }
            Some(Err(Unfit::Template)) => Err(Ended::Reject(Reject::Internal)),
            Some(Err(unfit)) => {
                let mut problem = Problem::default();
                problem.add(At::Body(""), unfit.detail());
                facts.exchange.problem = Some(Box::new(problem));
                Err(Ended::Reject(Reject::BadBody))
            }
        }
    }

    /// A request is not what is described: it ends here, or is only counted.
    fn wrong(&self, rule: &Validate, wrong: Wrong, facts: &mut super::prepare::Facts) -> Result<(), Ended> {
        if rule.observe {
            facts.exchange.observed.push(wrong.reject);
            return Ok(());
        }
        facts.exchange.problem = wrong.problem.map(Box::new);
        facts.allow = wrong.allow;
        Err(Ended::Reject(wrong.reject))
    }

    /// What is to be done about an answer's body by the edits.
    fn edits(&self, exchange: &Exchange, head: &response::Parts) -> Edits<'_> {
        let Some(shaper) = self.response.as_ref().filter(|_| has_body(exchange, head)) else {
            return Edits::Nothing;
        };
        let kind = Kind::of(&head.headers);
        let whole = head.status != StatusCode::PARTIAL_CONTENT;
        if !whole || kind.may_hide_json() {
            return match shaper.edit.wrong {
                WrongBody::Refuse => Edits::Refuse,
                WrongBody::Pass => Edits::Nothing,
            };
        }
        if shaper.edit.from.is_of(&kind) {
            Edits::By(shaper)
        } else {
            Edits::Nothing
        }
    }

    /// Whether an answer that is only a part would escape what is done with answers.
    fn needs_whole(&self, exchange: &Exchange) -> bool {
        let judged = || {
            self.described(exchange).is_some_and(|(rule, operation)| {
                rule.response == ResponseCheck::Enforce && validate::judges_answers(operation)
            })
        };
        self.response.is_some() || judged()
    }

    /// How answers of this request are described, and what is done about others.
    fn described(&self, exchange: &Exchange) -> Option<(&Validate, &Operation)> {
        let rule = self
            .validate
            .as_ref()
            .filter(|rule| rule.response != ResponseCheck::Off)?;
        Some((rule, rule.contract.operations.get(exchange.operation?)?))
    }

    /// Whether an answer is to be looked at.
    pub(super) fn wants(&self, exchange: &Exchange, head: &response::Parts) -> bool {
        !matches!(self.edits(exchange, head), Edits::Nothing) || self.described(exchange).is_some()
    }

    /// Of an answer to HEAD: takes away what speaks of a body that GET would not get.
    pub(super) fn unsaid(&self, exchange: &Exchange, head: &mut response::Parts) {
        let asked = exchange.kept.as_ref().map(|kept| kept.method());
        let kind = Kind::of(&head.headers);
        let edited = |shaper: &&Shaper| kind.may_hide_json() || shaper.edit.from.is_of(&kind);
        if asked == Some(&Method::HEAD)
            && let Some(shaper) = self.response.as_ref().filter(edited)
        {
            relabel(&mut head.headers, None, shaper.kind());
        }
    }

    /// Makes an answer's body what the client is to get, and holds that against its description.
    pub(super) async fn response(
        &self,
        head: &mut response::Parts,
        lease: &mut Lease<RequestBody>,
        pause: Duration,
        by: Option<Instant>,
        exchange: &mut Exchange,
        pattern: &PathMatch,
    ) -> Answer {
        let client = exchange.client.effective();
        let edits = match self.edits(exchange, head) {
            Edits::Nothing => None,
            Edits::By(shaper) => Some(shaper),
            Edits::Refuse => match read(lease, 0, pause, by, client).await {
                // There is nothing in it to be taken out.
                Ok(_) => None,
                Err(Unread::Broke(reject)) => return Answer::Refused(reject),
                Err(Unread::Part(..)) => {
                    tracing::debug!(status = %head.status, "an answer is a part, or of an unclear type: it can not be edited");
                    return Answer::Refused(Reject::ResponseInvalid);
                }
            },
        };
        let described = self.described(exchange);
        // Where the type is another afterwards, that is what is described.
        let told = described.map(|(rule, operation)| {
            let mut headers = head.headers.clone();
            if let Some(kind) = edits.and_then(Shaper::kind) {
                headers.insert(CONTENT_TYPE, kind);
            }
            // Of a part that the client asked for there is nothing to observe.
            let part = head.status == StatusCode::PARTIAL_CONTENT;
            let enforces = rule.response == ResponseCheck::Enforce;
            let body = has_body(exchange, head) && (enforces || !part);
            let told = validate::answer(operation, head.status, &headers, body);
            let told = told.and_then(|validator| match validator {
                Some(_) if part => Err("the body is only a part".to_owned()),
                validator => Ok(validator),
            });
            (rule, told)
        });
        let (rule, validator) = match told {
            None => (None, None),
            Some((rule, Ok(validator))) => (Some(rule), validator),
            Some((rule, Err(why))) => {
                if let Some(refused) = unlike(rule, &why, exchange) {
                    return refused;
                }
                (Some(rule), None)
            }
        };
        if edits.is_none() && validator.is_none() {
            return Answer::Untouched;
        }
        let enforces =
            rule.is_some_and(|rule| rule.response == ResponseCheck::Enforce) && validator.is_some();
        let passes = !enforces && edits.is_none_or(|shaper| shaper.edit.wrong == WrongBody::Pass);
        let bounds = [
            edits.map(|shaper| shaper.edit.max_bytes),
            rule.filter(|_| validator.is_some()).map(|rule| rule.max_bytes),
        ];
        let most = bounds.into_iter().flatten().min().unwrap_or_default();
        let raw = match read(lease, most, pause, by, client).await {
            Ok(raw) => raw,
            Err(Unread::Broke(reject)) => return Answer::Refused(reject),
            Err(Unread::Part(front, _)) if passes => return Answer::Begun(front.into_bytes()),
            Err(Unread::Part(_, why)) => return Answer::Refused(why),
        };
        let plain = plain(&head.headers, raw.bytes(), most);
        let made = match (edits, &exchange.kept, plain) {
            (Some(shaper), Some(kept), Some(plain)) => {
                shaper.make(&plain, &kept.facts(pattern), Some(head.status))
            }
            (None, _, Some(plain)) => Ok((plain, None)),
            _ => Err(Unfit::Page),
        };
        let (made, kind) = match made {
            Ok(made) => made,
            Err(_) if passes => return Answer::Whole(raw),
            Err(Unfit::Template) => return Answer::Refused(Reject::Internal),
            Err(_) => return Answer::Refused(Reject::ResponseInvalid),
        };
        if let (Some(rule), Some(validator)) = (rule, validator)
            && let Err(why) = validate::answer_body(validator, &made, rule.max_depth)
            && let Some(refused) = unlike(rule, &why, exchange)
        {
            return refused;
        }
        if edits.is_none() {
            return Answer::Whole(raw);
        }
        relabel(&mut head.headers, Some(made.len()), kind);
        raw.replace(made)
            .map_or(Answer::Refused(Reject::Overloaded), Answer::Whole)
    }
}

/// An answer is not what is described: it ends here, or is only counted. Why is for the log alone.
fn unlike(rule: &Validate, why: &str, exchange: &mut Exchange) -> Option<Answer> {
    tracing::debug!(why, "the answer is not what the API describes");
    if rule.response == ResponseCheck::Enforce {
        return Some(Answer::Refused(Reject::ResponseInvalid));
    }
    exchange.observed.push(Reject::ResponseInvalid);
    None
}

/// Whether an answer has a body, if only an empty one (RFC 9110, 6.4.1).
fn has_body(exchange: &Exchange, head: &response::Parts) -> bool {
    let bodiless = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let asked = exchange.kept.as_ref().map(|kept| kept.method());
    !bodiless && asked.is_some_and(|method| *method != Method::HEAD)
}

/// Whether a body can be looked at without any change to the request: it is known to be short, is not coded, and has room, which
/// is `held` for it.
fn fits(rule: &Validate, head: &request::Parts, body: &RequestBody, held: &mut Held) -> bool {
    let length = body
        .size_hint()
        .exact()
        .filter(|length| *length <= rule.max_bytes);
    !head.headers.contains_key(CONTENT_ENCODING)
        && length
            .and_then(|length| usize::try_from(length).ok())
            .is_some_and(|length| held.take(length))
}

/// What came of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing was read of it.
    Untouched,
    /// All of it.
    Whole(HeldBytes),
    /// It is too long to be held, or there is no room, and goes on as it is: what was read of it, and the rest.
    Begun(Bytes),
    Refused(Reject),
}

impl Shaper {
    /// The type of what is made, if it is another.
    fn kind(&self) -> Option<HeaderValue> {
        match (&self.edit.to, &self.page, self.edit.from) {
            (BodyMade::Page { .. }, Some(page), _) => Some(page.content_type.clone()),
            (BodyMade::Form, ..) => Some(FORM),
            (_, _, BodyForm::Form) => Some(JSON),
            _ => None,
        }
    }

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
            BodyForm::Form => Some(form::to_json(text).map_err(Unfit::Form)?),
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
                    if error.is_of_the_body() {
                        tracing::debug!(%error, "no body was made");
                        return Unfit::Page;
                    }
                    tracing::warn!(%error, path = facts.uri.path(), "a template failed by itself: the request is refused");
                    Unfit::Template
                })?;
                Ok((exact(made), self.kind()))
            }
            (BodyMade::Form, _) => {
                // Strictly, before it is read once more with its numbers as they are.
                tree()?;
                let made = form::of_json(&edited).ok_or(Unfit::NoForm)?;
                Ok((exact(made), self.kind()))
            }
            _ => Ok((exact(edited), self.kind())),
        }
    }
}

/// What is made takes no more memory than it is counted for.
fn exact(made: impl Into<Vec<u8>>) -> Bytes {
    Bytes::from(made.into().into_boxed_slice())
}

impl BodyForm {
    fn is_of(self, kind: &Kind) -> bool {
        let Kind::Known(essence) = kind else {
            return false;
        };
        match self {
            Self::Json => is_json(essence),
            Self::Form => is_form(essence),
        }
    }
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

/// Makes a header speak of a body that was made here, as far as it is known.
fn relabel(headers: &mut HeaderMap, length: Option<usize>, kind: Option<HeaderValue>) {
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
    headers.remove(CONTENT_ENCODING);
    headers.remove(ACCEPT_RANGES);
    headers.remove(CONTENT_RANGE);
    headers.remove(ETAG);
    for name in OF_THE_BYTES {
        headers.remove(name);
    }
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
    }
}
