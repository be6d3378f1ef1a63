//! A document whose sections stand between markers, so that one can be written anew and the others stay.

const HEAD: &str = "# Benchmarks

Measured by `cargo xtask bench packets` and `cargo xtask bench http`, which write this file. A figure of one machine
means little; the ratio between two programs that took turns under the same load on the same core in one run means more.
Each section says on what machine and when it was measured.
";

/// `old` with the section `name` replaced, or added at the end. An empty `old` gets the document's head.
pub fn replace(old: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let section = format!("{begin}\n{}\n{end}\n", text.trim());
    let place = old
        .find(&begin)
        .and_then(|from| Some((from, from + old[from..].find(&end)? + end.len())));
    match place {
        Some((from, to)) => {
            let rest = old[to..].strip_prefix('\n').unwrap_or(&old[to..]);
            format!("{}{section}{rest}", &old[..from])
        }
        None if old.trim().is_empty() => format!("{HEAD}\n{section}"),
        None => format!("{}\n\n{section}", old.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_and_are_replaced_in_place() {
        let one = replace("", "a", "first");
        assert!(one.starts_with("# Benchmarks\n"));
        let two = replace(&one, "b", "second\n\n");
        let three = replace(&two, "a", "other");
        assert!(three.contains("<!-- a: begin -->\nother\n<!-- a: end -->\n\n<!-- b: begin -->\nsecond\n"));
        assert!(!three.contains("first"));
        assert_eq!(
            replace(&three, "a", "other"),
            three,
            "the same again changes nothing"
        );
    }
}
