//! Times as JSON carries them.

/// `unix_ms` in UTC, as RFC 3339 §5.6 writes it, with milliseconds: "2026-11-21T09:45:55.000Z".
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days are counted in years that begin in March, so that the leap day is the last of its year; an era is 400 of them.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Back from RFC 3339 §5.6, in any offset, with any fraction of a second: milliseconds since 1970. None for other text, for times before
/// 1970, and for days that no month has. A leap second is the second after it.
pub(super) fn parse(text: &str) -> Option<u64> {
    let number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?;
    let part = |from: usize, to: usize, mark: &str| {
        let marked = mark.is_empty() || text.get(to..=to).is_some_and(|found| mark.contains(found));
        if marked { number(text.get(from..to)?) } else { None }
    };
    let (year, month, date) = (part(0, 4, "-")?, part(5, 7, "-")?, part(8, 10, "Tt")?);
    let (hour, minute, second) = (part(11, 13, ":")?, part(14, 16, ":")?, part(17, 19, "")?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let dates = [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let dates = *dates.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if !(1..=dates).contains(&date) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (ms, offset) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, offset) = rest.split_at(digits);
            let thousandths = fraction.bytes().chain(*b"00").take(3);
            let ms = thousandths.fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
            ((digits > 0).then_some(ms)?, offset)
        }
    };
    // As in `rfc3339`, years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + date - 1;
    let ms = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms;
    let ahead_ms = match offset.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
            let (hours, minutes) = (number(hours).filter(|h| *h < 24)?, number(minutes).filter(|m| *m < 60)?);
            let ahead = i64::try_from((hours * 60 + minutes) * 60_000).ok()?;
            if sign == "+" { ahead } else { -ahead }
        }
        _ => return None,
    };
    ms.checked_add_signed(-ahead_ms)?.checked_sub(719_468 * 86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_every_form_that_the_standard_allows() {
        for unix_ms in [0, 951_782_399_999, 951_868_800_000, 1_709_164_800_001, 1_767_225_599_500, 4_107_542_400_000] {
            assert_eq!(parse(&rfc3339(unix_ms)), Some(unix_ms));
        }
        for (text, unix_ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1996-12-19t16:39:57-08:00", 851_042_397_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("1937-01-01T12:00:27.87+00:20", 0),
            ("2024-02-29T00:00:00.1239z", 1_709_164_800_123),
            ("2024-02-29T00:30:00+01:00", 1_709_163_000_000),
        ] {
            assert_eq!(parse(text), Some(unix_ms).filter(|_| !text.starts_with("1937")), "{text}");
        }
        for bad in [
            "",
            "2024-02-29",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.5",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+00:00Z",
            "2024-01-01 00:00:00Z",
            "+024-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2024-01-01T00:00:00é",
            "é024-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn leap_days_and_ends_of_years_are_right() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(unix_s * 1000 + 7), format!("{text}.007Z"));
        }
    }
}
