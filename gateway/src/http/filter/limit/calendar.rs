//! Days and months, as quotas count them. Pure: the time is passed in, in seconds since 1970.
//!
//! Dates are those of the Gregorian calendar at a fixed offset from UTC; there is no summer time.

use crate::config::model::Period;

const DAY: i64 = 86_400;

/// The number of the period at `now`, from that of 1970 on, and the seconds until the next one begins, at least 1.
#[must_use]
pub fn period(per: Period, now: u64, offset_s: i32) -> (u64, u64) {
    let local = i64::try_from(now).unwrap_or(i64::MAX / 2) + i64::from(offset_s);
    let day = local.div_euclid(DAY);
    let (number, next) = match per {
        Period::Day => (day, day + 1),
        Period::Month => {
            let (year, month) = month_of(day);
            let number = (year - 1970) * 12 + month - 1;
            (number, first_day(number + 1))
        }
    };
    let left = (next * DAY - local).max(1);
    (
        u64::try_from(number).unwrap_or(0),
        u64::try_from(left).unwrap_or(1),
    )
}

/// Year and month (1 to 12) of a day since 1970. Years are counted from March, so that a leap day is the last of one.
fn month_of(day: i64) -> (i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month)
}

/// Day since 1970 on which a month begins; months are counted from January 1970.
fn first_day(number: i64) -> i64 {
    let (year, month) = (1970 + number.div_euclid(12), number.rem_euclid(12) + 1);
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5;
    let day = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970, by GNU date.
    const LEAP_DAY_2028: u64 = 1_835_395_200;
    const NEW_YEAR_2027: u64 = 1_798_761_600;

    #[test]
    fn days_and_months_begin_at_midnight_there() {
        assert_eq!(period(Period::Day, 0, 0), (0, 86_400));
        assert_eq!(period(Period::Day, NEW_YEAR_2027 - 1, 0).1, 1);
        assert_eq!(period(Period::Month, NEW_YEAR_2027 - 1, 0), (57 * 12 - 1, 1));
        assert_eq!(period(Period::Month, NEW_YEAR_2027, 0), (57 * 12, 31 * 86_400));
        let (month, left) = period(Period::Month, LEAP_DAY_2028, 0);
        assert_eq!(
            (month, left),
            (58 * 12 + 1, 86_400),
            "a leap day is the last of February"
        );
        assert_eq!(
            period(Period::Month, NEW_YEAR_2027 - 3_600, 2 * 3_600).0,
            57 * 12,
            "east of Greenwich"
        );
        assert_eq!(
            period(Period::Month, NEW_YEAR_2027, -1_800).0,
            57 * 12 - 1,
            "and west of it"
        );
    }

    #[test]
    fn each_second_belongs_to_one_period_and_the_next_begins_where_it_is_told() {
        for per in [Period::Day, Period::Month] {
            for now in (0..4_000_000_000_u64).step_by(7_654_321) {
                let (number, left) = period(per, now, 3_600);
                assert_eq!(period(per, now + left - 1, 3_600).0, number, "{per:?} {now}");
                assert_eq!(period(per, now + left, 3_600).0, number + 1, "{per:?} {now}");
            }
        }
    }
}
