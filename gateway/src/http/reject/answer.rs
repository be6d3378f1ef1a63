//! The gateway's own error response.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::{Problem, Reject};
use crate::http::headers::REQUEST_ID;

impl Reject {
    /// The gateway's own answer: a problem document (RFC 9457).
    ///
    /// `request_id` must be plain text without quotes or backslashes, as the gateway makes and accepts them. With
    /// `close` the client is told that the connection ends, which is a must when the rest of a request is not read.
    #[must_use]
    pub fn answer(
        self,
        request_id: Option<&HeaderValue>,
        problem: Option<&Problem>,
        close: bool,
    ) -> Response<Bytes> {
        let status = self.status();
        let id = request_id.and_then(|id| id.to_str().ok()).unwrap_or("");
        let mut body = format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"code":"{}","request_id":"{id}""#,
            self.title(),
            status.as_u16(),
            self.code(),
        );
        if let Some(errors) = problem.and_then(|problem| serde_json::to_string(problem.errors()).ok()) {
            body += r#","errors":"#;
            body += &errors;
        }
        body.push('}');
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self == Self::UnsupportedCoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd, br, gzip"));
        }
        if let Some(id) = request_id {
            headers.insert(REQUEST_ID, id.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reject::At;

    #[test]
    fn the_answer_is_valid_json_with_the_code_and_the_id() {
        let id = HeaderValue::from_static("abc");
        let mut problem = Problem::default();
        problem.add(At::Query("a\"\\"), "is \"wrong\"\n");
        for reject in Reject::ALL {
            for problem in [None, Some(&problem)] {
                let answer = reject.answer(Some(&id), problem, true);
                let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
                assert_eq!(body["code"], reject.code());
                assert_eq!(body["status"], answer.status().as_u16());
                assert_eq!(body["request_id"], "abc");
                assert_eq!(body.get("errors").is_some(), problem.is_some());
                assert_eq!(answer.headers()[CONNECTION], "close");
            }
        }
    }
}
