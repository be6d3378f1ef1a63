//! Points in time as people write them, and back. Pure.

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

/// `2027-01-15T08:00:00Z` for seconds since 1970.
#[must_use]
pub fn show(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The reverse of `days`, from the same source.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_cycle = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_cycle + of_cycle / 4 - of_cycle / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = of_cycle + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
    fn what_is_shown_is_read_again() {
        assert_eq!(show(1_800_000_000), "2027-01-15T08:00:00Z");
        for seconds in (0..6_000_000_000).step_by(86_399 * 59) {
            assert_eq!(moment(&show(seconds)), Ok(seconds * 1_000));
        }
    }
}
