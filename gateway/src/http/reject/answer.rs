//! The gateway's own error response, in the form that its client reads: a problem document (RFC 9457), plain text, the trailers
//! of a gRPC call, or what the operator wrote for the status.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Problem, Reject};
use crate::config::model::{ErrorPage, ErrorPages, Escape, PagePiece};
use crate::http::headers::{self, REQUEST_ID};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What a client reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A problem document; also for those who say nothing.
    #[default]
    Json,
    Text,
    Grpc,
}

impl Form {
    /// That of a request. Only who names `text/plain` and weighs it more than JSON gets it: a client that takes
    /// everything is a program more often than not.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        if headers::is_grpc(request) {
            return Self::Grpc;
        }
        let Some(accept) = request.get(ACCEPT) else {
            return Self::Json;
        };
        // The usual `*/*` needs no look at its parts.
        if accept.as_bytes() == b"*/*" {
            return Self::Json;
        }
        let (mut text, mut json) = (0, 0);
        let ranges = request
            .get_all(ACCEPT)
            .iter()
            .filter_map(|line| line.to_str().ok());
        for range in ranges.flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let is = |known: &[&str]| known.iter().any(|known| kind.eq_ignore_ascii_case(known));
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(1000, thousandths);
            if is(&["text/plain", "text/*"]) {
                text = text.max(weight);
            } else if is(&[
                "application/problem+json",
                "application/json",
                "application/*",
                "*/*",
            ]) {
                json = json.max(weight);
            }
        }
        if text > json { Self::Text } else { Self::Json }
    }
}

/// A weight (RFC 9110, 12.4.2) in thousandths; what is none counts as zero.
fn thousandths(text: &str) -> u32 {
    let weight = text
        .parse::<f32>()
        .ok()
        .filter(|weight| (0.0..=1.0).contains(weight));
    weight.map_or(0, |weight| (weight * 1000.0) as u32)
}

/// What a refusal is told with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling<'a> {
    /// Plain text without quotes or backslashes, as the gateway makes and accepts them.
    pub id: Option<&'a HeaderValue>,
    pub problem: Option<&'a Problem>,
    pub form: Form,
    /// The client is told that the connection ends, which is a must when the rest of a request is not read.
    pub close: bool,
    /// What the operator wrote, by status.
    pub pages: Option<&'a ErrorPages>,
    /// The same for the route, which comes first.
    pub own: Option<&'a ErrorPages>,
}

impl Reject {
    /// The gateway's own answer. A gRPC call gets its status in the header, as if it were the trailer (trailers-only).
    #[must_use]
    pub fn answer(self, with: Telling<'_>) -> Response<Bytes> {
        let status = self.status();
        let id = with.id.and_then(|id| id.to_str().ok()).unwrap_or("");
        let page = [with.own, with.pages]
            .into_iter()
            .flatten()
            .find_map(|pages| pages.get(status));
        let mut response = match (with.form, page) {
            (Form::Grpc, _) => self.grpc(),
            (_, Some(page)) => self.page(page, id),
            (Form::Json, None) => self.json(id, with.problem),
            (Form::Text, None) => self.text(id, with.problem),
        };
        let headers = response.headers_mut();
        if with.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self == Self::UnsupportedCoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd, br, gzip"));
        }
        if let Some(id) = with.id {
            headers.insert(REQUEST_ID, id.clone());
        }
        response
    }

    /// The status of the answer in this form: a gRPC call's is always 200.
    #[must_use]
    pub fn status_as(self, form: Form) -> StatusCode {
        match form {
            Form::Grpc => StatusCode::OK,
            Form::Json | Form::Text => self.status(),
        }
    }

    fn json(self, id: &str, problem: Option<&Problem>) -> Response<Bytes> {
        let mut body = format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"code":"{}","request_id":"{id}""#,
            self.title(),
            self.status().as_u16(),
            self.code(),
        );
        if let Some(errors) = problem.and_then(|problem| serde_json::to_string(problem.errors()).ok()) {
            body += r#","errors":"#;
            body += &errors;
        }
        body.push('}');
        self.with(body, HeaderValue::from_static("application/problem+json"))
    }

    fn text(self, id: &str, problem: Option<&Problem>) -> Response<Bytes> {
        let mut body = format!("{} {}\n", self.status().as_u16(), self.title());
        for line in problem.into_iter().flat_map(Problem::lines) {
            let _ = writeln!(body, "{line}");
        }
        let _ = writeln!(body, "code: {}\nrequest id: {id}", self.code());
        self.with(body, HeaderValue::from_static("text/plain; charset=utf-8"))
    }

    fn page(self, page: &ErrorPage, id: &str) -> Response<Bytes> {
        let mut body = String::new();
        for piece in &page.body {
            match piece {
                PagePiece::Text(text) => body += text,
                PagePiece::Code => body += self.code(),
                PagePiece::Status => body += self.status().as_str(),
                PagePiece::Title => escape(&mut body, self.title(), page.escape),
                PagePiece::RequestId => escape(&mut body, id, page.escape),
            }
        }
        self.with(body, page.content_type.clone())
    }

    fn with(self, body: String, kind: HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    fn grpc(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_status()));
        // Titles are plain ASCII, of which the message escapes only %; it begins with the code, which programs look for.
        let message = format!("{}: {}", self.code(), self.title());
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert(GRPC_MESSAGE, message);
        }
        response
    }

    /// What a gRPC client makes of the status (the protocol's mapping), or something that says more.
    const fn grpc_status(self) -> u16 {
        match self {
            Self::RateLimited | Self::ConcurrencyLimited | Self::QuotaExceeded | Self::BodyTooLarge => 8,
            Self::UpstreamTimeout | Self::DeadlineExceeded => 4,
            _ => match self.status().as_u16() {
                401 => 16,
                403 => 7,
                404 | 405 | 501 => 12,
                422 => 3,
                408 | 429 | 502 | 503 | 504 => 14,
                _ => 13,
            },
        }
    }
}

fn escape(to: &mut String, text: &str, how: Escape) {
    for letter in text.chars() {
        match (how, letter) {
            (Escape::Html, '&') => to.push_str("&amp;"),
            (Escape::Html, '<') => to.push_str("&lt;"),
            (Escape::Html, '>') => to.push_str("&gt;"),
            (Escape::Html, '"') => to.push_str("&quot;"),
            (Escape::Json, '"' | '\\') => {
                to.push('\\');
                to.push(letter);
            }
            _ => to.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reject::At;

    fn accept(lines: &[&'static str]) -> Form {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_static(line));
        }
        Form::of(&headers)
    }

    #[test]
    fn a_client_gets_text_if_it_prefers_it_and_json_otherwise() {
        for json in [
            &[][..],
            &["*/*"],
            &["text/html,application/xhtml+xml,*/*;q=0.8"],
            &["application/json"],
            &["text/plain;q=0.5, application/json"],
            &["text/plain, */*"],
            &["text/plain;q=x"],
            &["text/html"],
        ] {
            assert_eq!(accept(json), Form::Json, "{json:?}");
        }
        for text in [
            &["text/plain"][..],
            &["text/html, Text/Plain"],
            &["*/*;q=0.1", "text/plain; q=0.2"],
            &["text/*"],
        ] {
            assert_eq!(accept(text), Form::Text, "{text:?}");
        }
        let mut grpc = HeaderMap::new();
        grpc.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        assert_eq!(Form::of(&grpc), Form::Grpc);
    }

    #[test]
    fn every_form_has_the_code_and_the_id() {
        let id = HeaderValue::from_static("abc");
        let mut problem = Problem::default();
        problem.add(At::Query("a\"\\"), "is \"wrong\"\n");
        for reject in Reject::ALL {
            for problem in [None, Some(&problem)] {
                let telling = Telling {
                    id: Some(&id),
                    problem,
                    close: true,
                    ..Telling::default()
                };
                let answer = reject.answer(telling);
                let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
                assert_eq!(body["code"], reject.code());
                assert_eq!(body["status"], answer.status().as_u16());
                assert_eq!(body["request_id"], "abc");
                assert_eq!(body.get("errors").is_some(), problem.is_some());
                assert_eq!(answer.headers()[CONNECTION], "close");
                let text = reject.answer(Telling {
                    form: Form::Text,
                    ..telling
                });
                let text = std::str::from_utf8(text.body()).unwrap();
                assert!(text.contains(reject.code()) && text.contains("abc"), "{text}");
                let call = reject.answer(Telling {
                    form: Form::Grpc,
                    ..telling
                });
                assert_eq!((call.status(), call.body().len()), (StatusCode::OK, 0));
                assert_ne!(call.headers()[GRPC_STATUS], "0");
                assert!(
                    call.headers()[GRPC_MESSAGE]
                        .to_str()
                        .unwrap()
                        .starts_with(reject.code())
                );
            }
        }
    }

    #[test]
    fn what_an_operator_wrote_is_filled_in_and_escaped() {
        let page = |escape| ErrorPage {
            content_type: HeaderValue::from_static("text/html"),
            body: vec![
                PagePiece::Text("<b>".into()),
                PagePiece::Status,
                PagePiece::Code,
                PagePiece::RequestId,
            ],
            escape,
        };
        let id = HeaderValue::from_static("a<b\"c");
        for (how, expected) in [
            (Escape::Html, "<b>404no_routea&lt;b&quot;c"),
            (Escape::Json, "<b>404no_routea<b\\\"c"),
            (Escape::None, "<b>404no_routea<b\"c"),
        ] {
            let answer = Reject::NoRoute.page(&page(how), id.to_str().unwrap());
            assert_eq!(answer.body(), expected);
        }
    }
}
