//! Readers of single values, to be put together: a number in a range, a choice, a value with a unit in a range.
//!
//! Owns their messages. Knows no setting and no place: `decode` adds where the value stands.

use super::fault::{Wrong, nearest, quote};

/// A whole number in `range`.
pub fn number(range: std::ops::RangeInclusive<u32>) -> impl FnOnce(&str) -> Result<u32, Wrong> {
    move |text| {
        let (low, high) = (range.start(), range.end());
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().ok().filter(|n| plain && range.contains(n)) {
            Some(n) => Ok(n),
            None => Err(Wrong::new(format!(
                "{} is not a whole number from {low} to {high}",
                quote(text)
            ))),
        }
    }
}

/// `true` or `false`.
pub fn truth(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Wrong::new(format!("{} is not true or false", quote(text)))),
    }
}

/// One of a few names.
pub fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl FnOnce(&str) -> Result<T, Wrong> {
    move |text| match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let wrong = Wrong::new(format!("{} is not one of {}", quote(text), names.join(", ")));
            Err(match nearest(text, names) {
                Some(name) => wrong.hint(format!("did you mean {}?", quote(name))),
                None => wrong,
            })
        }
    }
}

/// A value that `read` understands, within `range`; `show` writes its ends.
pub fn within<T: PartialOrd + Copy>(
    range: std::ops::RangeInclusive<T>,
    read: impl FnOnce(&str) -> Result<T, Wrong>,
    show: impl Fn(T) -> String,
) -> impl FnOnce(&str) -> Result<T, Wrong> {
    move |text| {
        let value = read(text)?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (show(*range.start()), show(*range.end()));
        Err(Wrong::new(format!("{} is out of range", quote(text)))
            .hint(format!("it goes from {low} to {high}")))
    }
}

/// `off`, or a value that `read` understands.
pub fn or_off<T>(
    read: impl FnOnce(&str) -> Result<T, Wrong>,
) -> impl FnOnce(&str) -> Result<Option<T>, Wrong> {
    move |text| {
        if text == "off" {
            Ok(None)
        } else {
            read(text).map(Some)
        }
    }
}
