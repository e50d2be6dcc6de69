//! RFC 3339 times, as the files of an ingest hold them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// The time in UTC with nanoseconds. Times before 1970 become 1970.
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / DAY);
    let second = since.as_secs() % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Parses any RFC 3339 time from 1970 on; `None` for what is none.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.trim_end().split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let at = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.split(':').map(|part| part.parse::<u64>().ok().filter(|part| *part < 61));
    let seconds = clock.next()?? * 3600 + clock.next()?? * 60 + clock.next()??;
    let nanos = match fraction {
        "" => 0,
        digits if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<9}").parse::<u32>().ok()?
        }
        _ => return None,
    };
    let local = UNIX_EPOCH + Duration::new(days(year, month, day) * DAY + seconds, nanos);
    if zone == "Z" {
        return Some(local);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let offset = Duration::from_secs(
        hours.parse::<u32>().ok()?.min(24) as u64 * 3600 + minutes.parse::<u32>().ok()?.min(60) as u64 * 60,
    );
    if zone.starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) }
}

/// Days of the years before `year` since year 0 in the Gregorian calendar, years beginning in March.
fn march_years(year: u64) -> u64 {
    year * 365 + year / 4 - year / 100 + year / 400
}

/// Days of the year, from March, before a month (0 is March).
fn march_months(month: u64) -> u64 {
    (month * 153 + 2) / 5
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    march_years(year) + march_months(month) + day - 1 - EPOCH
}

fn civil(since_epoch: u64) -> (u64, u64, u64) {
    let total = since_epoch + EPOCH;
    let mut year = total / 365 + 1;
    while march_years(year) > total {
        year -= 1;
    }
    let rest = total - march_years(year);
    let month = (rest * 5 + 2) / 153;
    let day = rest - march_months(month) + 1;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        let check = |text: &str, seconds: u64, nanos: u32| {
            assert_eq!(parse(text), Some(UNIX_EPOCH + Duration::new(seconds, nanos)), "{text}");
        };
        check("1970-01-01T00:00:00Z", 0, 0);
        check("2026-11-23T11:00:00.5Z", 1_795_431_600, 500_000_000);
        check("2000-02-29T23:59:59.000000001+01:30", 951_863_399, 1);
        assert_eq!(format(UNIX_EPOCH + Duration::new(951_868_799, 7)), "2000-02-29T23:59:59.000000007Z");
        for bad in ["", "x", "2026-11-23", "2026-13-01T00:00:00Z", "1969-01-01T00:00:00Z", "2026-11-23T1:2Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(seconds in 0..250_000_000_000_u64, nanos in 0..1_000_000_000_u32) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn never_panics(text in "[0-9TZ:.+-]{0,40}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
