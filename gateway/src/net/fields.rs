//! What the HTTP/2 library lets through in fields that HTTP forbids, for both sides of the proxy. Pure.

use http::HeaderMap;

/// Whether a value begins or ends with a blank, which makes an HTTP/2 message malformed (RFC 9113, 8.2.1). In HTTP/1 such
/// blanks are none of the value, so that who gets it would see another.
#[must_use]
pub fn has_outer_blanks(fields: &HeaderMap) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    fields.values().any(|value| {
        let value = value.as_bytes();
        is_blank(value.first()) || is_blank(value.last())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_blanks_at_an_end_count() {
        let with = |value| {
            let mut fields = HeaderMap::new();
            fields.append("x", HeaderValue::from_static("fine"));
            fields.append("x", HeaderValue::from_static(value));
            has_outer_blanks(&fields)
        };
        assert!(["", "1", "1 \t2"].into_iter().all(|value| !with(value)));
        assert!([" ", " 1", "1 ", "\t1", "1\t", "\t"].into_iter().all(with));
        assert!(!has_outer_blanks(&HeaderMap::new()));
    }
}
