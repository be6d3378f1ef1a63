//! `quota` of a route, and `quotas` at the top.

use super::rate::by;
use crate::config::decode::{Field, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Period, Quota};
use crate::config::scalar::{choice, number, truth};

const PERIODS: [(&str, Period); 2] = [("day", Period::Day), ("month", Period::Month)];

pub(super) fn quota(walk: &mut Walk, field: &Field<'_>, name: Option<&str>) -> Option<Quota> {
    walk.table(field, |walk, table| {
        let requests = table.require(walk, "requests", "such as requests: 10000");
        let requests = requests.and_then(|field| walk.value(&field, number(1..=u32::MAX)));
        let per = table.require(walk, "per", "day or month");
        let per = per.and_then(|field| walk.value(&field, choice(&PERIODS)));
        let offset_s = table.value_or(walk, "zone", 0, zone);
        let by = by(walk, table);
        let headers = table.value_or(walk, "headers", true, truth);
        let observe = table.value_or(walk, "observe", false, truth);
        Some(Quota {
            name: name.map(str::to_owned),
            requests: requests?,
            per: per?,
            offset_s,
            by,
            headers,
            observe,
        })
    })?
}

/// `UTC`, or an offset such as `+02:00`, in seconds.
fn zone(text: &str) -> Result<i32, Wrong> {
    let refuse = || {
        Wrong::new(format!("{} is not an offset from UTC", quote(text)))
            .hint("write UTC, or hours and minutes such as +02:00 or -03:30; there is no summer time")
    };
    if text == "UTC" {
        return Ok(0);
    }
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(refuse()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(refuse)?;
    let two = |text: &str, most: i32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<i32>().ok().filter(|n| digits && *n <= most);
        number.ok_or_else(refuse)
    };
    Ok(sign * (two(hours, 14)? * 3600 + two(minutes, 59)? * 60))
}
