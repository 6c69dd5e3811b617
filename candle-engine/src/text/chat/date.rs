//! Today's date for `strftime_now`, without a time zone database: always UTC.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Seconds since 1970; a clock set before that counts as 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Year, month from 1 and day from 1 of a day counted from 1 January 1970.
///
/// Source: Hinnant, "chrono-compatible low-level date algorithms" (civil_from_days), for days after the epoch.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the leap day is the last; eras are the 400 years after which the calendar repeats.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Formats a time as Python's `strftime` does in the C locale, in UTC.
///
/// A code that is not known stays as it stands, as in glibc. `%-d` and the like leave out the padding.
/// Units: `seconds` since 1970.
pub(super) fn strftime(format: &str, seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = (days + 4) % 7; // 1 January 1970 was a Thursday
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    let of_year = before + day + u64::from(leap && month > 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[weekday as usize]);

    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        let code = &rest[at..];
        let unpadded = code[1..].starts_with('-');
        let letter = code[1 + usize::from(unpadded)..].chars().next();
        let number = |out: &mut String, n: u64, width: usize, pad: char| {
            let _ = match (unpadded, pad) {
                (true, _) => write!(out, "{n}"),
                (false, ' ') => write!(out, "{n:width$}"),
                (false, _) => write!(out, "{n:0width$}"),
            };
        };
        match letter {
            Some('Y') => number(&mut out, year, 1, '0'),
            Some('C') => number(&mut out, year / 100, 2, '0'),
            Some('y') => number(&mut out, year % 100, 2, '0'),
            Some('m') => number(&mut out, month, 2, '0'),
            Some('d') => number(&mut out, day, 2, '0'),
            Some('e') => number(&mut out, day, 2, ' '),
            Some('j') => number(&mut out, of_year, 3, '0'),
            Some('H') => number(&mut out, hour, 2, '0'),
            Some('I') => number(&mut out, hour12, 2, '0'),
            Some('M') => number(&mut out, minute, 2, '0'),
            Some('S') => number(&mut out, second, 2, '0'),
            Some('f') => out += "000000",
            Some('u') => number(&mut out, (weekday + 6) % 7 + 1, 1, '0'),
            Some('w') => number(&mut out, weekday, 1, '0'),
            Some('U') => number(&mut out, (of_year + 6 - weekday) / 7, 2, '0'),
            Some('W') => number(&mut out, (of_year + 6 - (weekday + 6) % 7) / 7, 2, '0'),
            Some('s') => number(&mut out, seconds, 1, '0'),
            Some('B') => out += month_name,
            Some('b' | 'h') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('Z') => out += "UTC",
            Some('z') => out += "+0000",
            Some('F') => out += &strftime("%Y-%m-%d", seconds),
            Some('D' | 'x') => out += &strftime("%m/%d/%y", seconds),
            Some('T' | 'X') => out += &strftime("%H:%M:%S", seconds),
            Some('R') => out += &strftime("%H:%M", seconds),
            Some('r') => out += &strftime("%I:%M:%S %p", seconds),
            Some('c') => out += &strftime("%a %b %e %H:%M:%S %Y", seconds),
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('%') => out.push('%'),
            other => {
                out += if unpadded { "%-" } else { "%" };
                out.extend(other);
            }
        }
        rest = &code[1 + usize::from(unpadded) + letter.map_or(0, char::len_utf8)..];
    }
    out + rest
}
