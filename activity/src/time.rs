//! Times: RFC 3339 in, milliseconds since 1970 inside, days and hours for folders.

/// An hour, in milliseconds.
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// A day, in milliseconds.
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

/// Milliseconds since 1970 of a time as RFC 3339 §5.6 writes it; `None` when it is not one, or before 1970. A leap second is the second
/// before it, as POSIX has no other place for it; digits beyond milliseconds are passed over.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |at: usize, n: usize| {
        let digits = bytes.get(at..at + n)?;
        digits.iter().try_fold(0_i64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut ms = 0;
    if is(at, b".") {
        let fraction = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        let known = fraction.min(3);
        ms = digits(at + 1, known)? * [0, 100, 10, 1][known];
        at += 1 + fraction;
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'+' { hours * 60 + minutes } else { -(hours * 60 + minutes) }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second.min(59);
    u64::try_from(seconds * 1000 + ms).ok()
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970. Years are counted from March, so that the leap day is the last of its year; an era is 400 of them.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// The day of `unix_ms` in UTC as folders have it, "2026-11-21", and the hour.
pub fn date_and_hour(unix_ms: u64) -> (String, u64) {
    let (number, hour) = (unix_ms / DAY_MS, unix_ms / HOUR_MS % 24);
    // The inverse of `days`, found from the year that it is at the earliest.
    let number = number as i64;
    let mut year = 1970 + number / 366;
    while days(year + 1, 1, 1) <= number {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= number {
        month += 1;
    }
    let day = number - days(year, month, 1) + 1;
    (format!("{year:04}-{month:02}-{day:02}"), hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_has_them() {
        for (text, unix_ms) in [
            ("1970-01-01T00:00:00Z", 0_i64),
            ("1985-04-12T23:20:50.52Z", 482_196_050_520),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000),
            ("1990-12-31T23:59:60Z", 662_687_999_000),
            ("1990-12-31T15:59:60-08:00", 662_687_999_000),
            ("1937-01-01T12:00:27.87+00:20", -1),
            ("2000-02-29t12:00:00.123456789z", 951_825_600_123),
            ("2026-11-21 09:45:55.7Z", 1_795_254_355_700),
        ] {
            assert_eq!(parse_rfc3339(text), u64::try_from(unix_ms).ok(), "{text}");
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T09:45:55",
            "2026-11-21T09:45Z",
            "2026-11-21T09:45:55.Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T09:45:55+1:00",
            "2026-11-21T09:45:55Zx",
            "2026-11-21T09:45:5٣Z",
            "+026-11-21T09:45:55Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn folders_name_the_day_and_hour_of_a_time() {
        for (text, date, hour) in [
            ("1970-01-01T00:00:00Z", "1970-01-01", 0),
            ("2024-02-29T23:59:59.999Z", "2024-02-29", 23),
            ("2024-03-01T00:00:00Z", "2024-03-01", 0),
            ("2024-12-31T12:00:00Z", "2024-12-31", 12),
            ("2100-03-01T05:00:00Z", "2100-03-01", 5),
        ] {
            assert_eq!(date_and_hour(parse_rfc3339(text).unwrap()), (date.to_owned(), hour));
        }
    }
}
