//! Texts with names in braces, such as `/orders/{id}`. Owns where a name begins and ends; knows nothing of what it means.

/// A stretch of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Never empty.
    Text(&'t str),
    /// What stands between two braces; may be empty.
    Name(&'t str),
}

/// The stretches of a text, in their order. A brace that neither opens nor closes a name is `None`, and the last.
pub(super) fn parts(text: &str) -> impl Iterator<Item = Option<Part<'_>>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (plain, after) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !plain.is_empty() {
            rest = after;
            return Some(Some(Part::Text(plain)));
        }
        let named = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        rest = named.map_or("", |(_, after)| after);
        Some(named.map(|(name, _)| Part::Name(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_falls_apart_at_its_braces() {
        let split = |text| parts(text).collect::<Vec<_>>();
        assert_eq!(split(""), []);
        assert_eq!(
            split("/a/{b}{}c"),
            [
                Part::Text("/a/"),
                Part::Name("b"),
                Part::Name(""),
                Part::Text("c")
            ]
            .map(Some)
        );
        for text in ["a{", "a}", "a{b", "a}b{c}"] {
            assert_eq!(split(text), [Some(Part::Text("a")), None], "{text}");
        }
    }
}
