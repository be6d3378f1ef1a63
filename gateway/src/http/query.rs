//! The query of a request: its parameters, decoded, and taken out whole. `rewrite` changes others.

use std::borrow::Cow;

/// The values of the parameter `name`, in order, decoded: `%XX` and `+`. A parameter without `=` has an empty value.
pub fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = Cow<'q, [u8]>> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decode(key) == *name.as_bytes()).then(|| decode(value))
    })
}

/// The query without the parameter `name`, however that is spelled; `None` if it is not there. All else stays as it was sent.
pub fn without(query: &str, name: &str) -> Option<String> {
    let its = |pair: &&str| *decode(pair.split('=').next().unwrap_or_default()) == *name.as_bytes();
    if !query.split('&').any(|pair| its(&pair)) {
        return None;
    }
    let kept: Vec<_> = query.split('&').filter(|pair| !its(pair)).collect();
    Some(kept.join("&"))
}

/// A broken triplet stands for itself.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let triplet = match (byte, after) {
            (b'%', [high, low, left @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, left)),
            _ => None,
        };
        match triplet {
            Some((value, left)) => {
                out.push(value);
                rest = left;
            }
            None => out.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_all_of_them_seen() {
        let all = |query, name| values(query, name).map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(all("a=1&b=2&a=3", "a"), [b"1", b"3"]);
        assert_eq!(all("%61=x%2By+z&a", "a"), [&b"x+y z"[..], b""]);
        assert_eq!(all("a=%zz%4", "a"), [b"%zz%4"]);
        assert!(all("", "a").is_empty() && all("ab=1&A=2", "a").is_empty());
    }
}
