//! The URIs of streams: `fifo://`, `file://`, `binary://` and `binary-v2://`. A bare path is a FIFO.

/// A URI.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) scheme: String,
    pub(crate) path: String,
    /// Words of the query: each key with its first value.
    pub(crate) words: Vec<String>,
}

/// The path that names a FIFO.
pub(crate) fn fifo(name: &str) -> &str {
    name.strip_prefix("fifo://").unwrap_or(name)
}

impl Uri {
    /// Reads a URI; none for a bare path.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        if !["fifo", "file", "binary", "binary-v2"].contains(&scheme) {
            return Err(format!("stdout: {text:?} has the scheme {scheme:?}, which is none of streams"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let decoded = |text: &str| decode(text).ok_or_else(|| format!("stdout: {text:?} is wrongly encoded"));
        let path = decoded(&path.replace('+', "%2B"))?;
        if !path.starts_with('/') {
            return Err(format!("stdout: {text:?} names no absolute path"));
        }
        let mut words: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key)?, decoded(value)?);
            if words.iter().all(|(other, _)| *other != key) {
                words.push((key, value));
            }
        }
        let words = words.into_iter().flat_map(|(key, value)| [key, value]).collect();
        Ok(Some(Self { scheme: scheme.to_owned(), path, words }))
    }

    /// Whether a program takes the output.
    pub(crate) fn is_program(&self) -> bool {
        self.scheme.starts_with("binary")
    }

    /// Whether the program has to say that it is ready.
    pub(crate) fn must_say_ready(&self) -> bool {
        self.scheme == "binary-v2"
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(Uri::parse("/run/fifo/1").unwrap(), None);
        assert_eq!(Uri::parse("").unwrap(), None);
        assert_eq!(fifo("fifo:///a"), "/a");
        let uri = Uri::parse("binary:///bin/l%20g+x?--id=a+b%25&flag&--id=c").unwrap().unwrap();
        assert_eq!(uri.path, "/bin/l g+x");
        assert_eq!(uri.words, ["--id", "a b%", "flag", ""]);
        assert!(uri.is_program() && !uri.must_say_ready());
        assert!(Uri::parse("binary-v2:///b").unwrap().unwrap().must_say_ready());
        for wrong in ["http://x/y", "file://relative", "binary:///a%2", "binary:///a?x=%zz", "file:///a%00b"] {
            assert!(Uri::parse(wrong).is_err(), "{wrong}");
        }
    }
}
