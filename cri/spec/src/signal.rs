//! Signals as images and requests spell them.

use crate::error::{Error, Result};

const NAMES: [(&str, u32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

// The C library keeps 32 and 33 for its threads.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal: `15`, `SIGTERM`, `term`, `RTMIN+3`, `SIGRTMAX-1`, and the names of CRI's enum in both
/// spellings (`SIGNAL_SIGRTMINPLUS3`, `SIGRTMAXMINUS1`). Numbers are those of x86, Arm, RISC-V and s390x.
pub fn stop_signal(text: &str) -> Result<u32> {
    parse(text.trim())
        .ok_or_else(|| Error::Invalid { field: "stop_signal".into(), reason: format!("there is no signal {text:?}") })
}

fn parse(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIGNAL_").unwrap_or(&upper);
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let offset = |rest: &str, words: [&str; 2]| -> Option<u32> {
        let digits = words.iter().find_map(|word| rest.strip_prefix(word))?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?.filter(|n| *n <= RTMAX - RTMIN)
    };
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named
        .or_else(|| Some(RTMIN + offset(name.strip_prefix("RTMIN")?, ["+", "PLUS"])?))
        .or_else(|| Some(RTMAX - offset(name.strip_prefix("RTMAX")?, ["-", "MINUS"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        let cases = [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            (" 9 ", 9),
            ("SIGNAL_SIGKILL", 9),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+30", 64),
            ("SIGRTMAX-1", 63),
            ("SIGNAL_SIGRTMINPLUS3", 37),
            ("SIGRTMAXMINUS14", 50),
            ("64", 64),
            ("SIGCLD", 17),
        ];
        for (text, number) in cases {
            assert_eq!(stop_signal(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["", "0", "65", "-1", "SIG", "SIGFOO", "RTMIN+", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "1x"]
        {
            let error = stop_signal(text).unwrap_err();
            assert!(error.to_string().starts_with("stop_signal: "), "{text}: {error}");
        }
    }
}
