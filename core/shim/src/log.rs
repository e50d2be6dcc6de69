//! The shim's log: lines of `key=value` into the FIFO `log` of the bundle, which the daemon copies to its own. Nobody waits
//! for it: without a reader the pipe takes what fits, and what does not fit is dropped.

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::SystemTime,
};

use rustix::fs::OFlags;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// A line is written at once; a longer one could be mixed with another's.
const LINE: usize = 4096;

/// Opens the log of a bundle and has everything logged there.
///
/// # Errors
/// When there is no log.
pub(crate) fn start(bundle: &Path, debug: bool) -> io::Result<()> {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    // For reading, too: a pipe without a reader would end its writer, and the daemon may be gone for a while.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(bundle.join("log"))?;
    tracing::subscriber::set_global_default(Lines { file, level }).map_err(io::Error::other)
}

struct Lines {
    file: File,
    level: Level,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let line = line(event, SystemTime::now());
        let _ = (&self.file).write_all(&line); // full, or gone
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn line(event: &Event<'_>, now: SystemTime) -> Vec<u8> {
    let level = event.metadata().level().as_str().to_ascii_lowercase();
    let time = prost_types::Timestamp::from(now);
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut line = format!("time=\"{time}\" level={level} msg={:?}{}", fields.message, fields.rest);
    if line.len() >= LINE {
        let cut = (0..LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
    }
    line.push('\n');
    line.into_bytes()
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name if value.contains([' ', '"', '\n', '=']) && !value.starts_with('"') => {
                write!(self.rest, " {name}={value:?}")
            }
            name => write!(self.rest, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn lines_reach_a_reader_and_wait_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        let lines = Lines { file, level: Level::INFO };
        tracing::subscriber::with_default(lines, || {
            tracing::info!(id = "a b", count = 3, error = %"of 2\nlines", "it is \"said\"");
            tracing::debug!("not this");
            tracing::warn!("{}", "ä".repeat(LINE));
            for _ in 0..10_000 {
                tracing::info!("more than fits");
            }
            let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
            let mut text = vec![0; 16 << 10];
            let count = reader.read(&mut text).unwrap();
            let text = String::from_utf8_lossy(&text[..count]).into_owned();
            let first = text.lines().next().unwrap();
            let want = r#"level=info msg="it is \"said\"" id="a b" count=3 error="of 2\nlines""#;
            assert!(first.starts_with("time=\"20") && first.ends_with(want), "{first}");
            let second = text.lines().nth(1).unwrap();
            assert!(second.contains("level=warn") && second.len() >= LINE - 2, "{second}");
        });
    }
}
