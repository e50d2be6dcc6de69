//! Durations as the configuration writes them: Go's form, `1h2m3.5s` or `100ms`.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize as _, Deserializer, Serializer, de};

const UNITS: [(&str, f64); 7] =
    [("ns", 1e-9), ("us", 1e-6), ("\u{b5}s", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads a duration; none if the text is not one.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Writes a duration in the shortest of the forms that are read.
pub fn text(duration: Duration) -> String {
    let mut text = String::new();
    let _ = match duration.subsec_nanos() {
        0 => write!(text, "{}s", duration.as_secs()),
        nanos if nanos % 1_000_000 == 0 => write!(text, "{}ms", duration.as_millis()),
        _ => write!(text, "{}ns", duration.as_nanos()),
    };
    text
}

/// For serde's `with`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

/// For serde's `with`.
///
/// # Errors
/// When the value is not a text that is a duration; it says so.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is not a duration such as \"100ms\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let check = |input: &str, want: Option<u64>| {
            assert_eq!(parse(input), want.map(Duration::from_millis), "{input}");
        };
        check("0s", Some(0));
        check("0", Some(0));
        check("100ms", Some(100));
        check("1h2m3.5s", Some(3_723_500));
        for bad in ["", "5", "x", "5 s", "s", "-1s", "1..2s", "1d"] {
            check(bad, None);
        }
        assert_eq!(text(Duration::from_millis(100)), "100ms");
        assert_eq!(parse(&text(Duration::from_nanos(1_000_001))), Some(Duration::from_nanos(1_000_001)));
    }
}
