//! Ends of entries as lists write them. Pure.

use crate::cli::args::LONGEST_TTL;
use crate::config::units;

/// A number above this counts milliseconds, not seconds: as seconds it would be the year 5138.
const SECONDS_AT_MOST: u64 = 100_000_000_000;

/// Milliseconds since 1970 of `1800000000` (seconds), `1800000000000` (milliseconds) or `2027-01-15T08:00:00Z`.
pub fn moment(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(if number <= SECONDS_AT_MOST {
            number * 1_000
        } else {
            number
        });
    }
    rfc3339(text)
        .ok_or_else(|| format!("{text:?} is no time: write 2027-01-15T08:00:00Z or seconds since 1970"))
}

/// The end of what lasts `text` from now, which is seconds or has a unit, such as `10m`.
pub fn after(text: &str, now_ms: u64) -> Result<u64, String> {
    let ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let ttl = units::duration(text).map_err(|fault| fault.to_string())?;
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
        }
    };
    if ms > u64::try_from(LONGEST_TTL.as_millis()).unwrap_or(u64::MAX) {
        return Err(format!(
            "{text:?} is more than 3000d, further than the kernel's tables count"
        ));
    }
    Ok(now_ms.saturating_add(ms))
}

fn rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let fits = marks.iter().all(|(at, mark)| text.get(*at..at + 1) == Some(mark));
    if !fits || !matches!(text.get(10..11)?, "T" | "t" | " ") {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    // Fractions of a second do not matter here.
    let zone = rest
        .strip_prefix('.')
        .map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            if hours.len() != 2 || minutes.len() != 2 {
                return None;
            }
            sign * (i64::from(hours.parse::<u8>().ok()?) * 3_600
                + i64::from(minutes.parse::<u8>().ok()?) * 60)
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

/// Days from 1970 to a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_each_spelling() {
        for text in [
            "1800000000",
            "1800000000000",
            "2027-01-15T08:00:00Z",
            "2027-01-15 08:00:00.25Z",
            "2027-01-15T09:30:00+01:30",
        ] {
            assert_eq!(moment(text), Ok(1_800_000_000_000), "{text}");
        }
        assert_eq!(moment("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(moment("2000-02-29T00:00:00Z"), Ok(951_782_400_000));
        for text in [
            "",
            "soon",
            "2027-01-15",
            "2027-13-01T00:00:00Z",
            "2027-01-15T08:00:00",
            "2027-01-15T08:00:00+1",
            "١٢٣٤-01-15T08:00:00Z",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_to_live_counts_from_now() {
        assert_eq!(after("90", 1_000), Ok(91_000));
        assert_eq!(after("10m", 0), Ok(600_000));
        assert!(after("x", 0).is_err());
    }
}
