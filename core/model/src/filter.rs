//! containerd's filter language: `name==foo,labels."a.b"~=^x` selects objects by their fields.
//!
//! Selectors joined by commas must all hold; of several filters any one must. A selector is a field path alone (the
//! field is present), or a path, one of `==`, `!=`, `~=`, and a value, bare or quoted as in Go.

use std::{borrow::Cow, fmt};

use regex_lite::Regex;

use crate::Error;

/// An object whose fields filters can ask for.
pub trait Adaptor {
    /// The field at `path`, if the object has it. A path into a map has the whole rest as its key:
    /// `labels."a.b"` and `labels.a.b` both come as `["labels", …]`.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>>;
}

/// Looks `path` (joined by dots) up in a map; for [`Adaptor`]s with labels.
pub fn map_field<'a>(map: &'a std::collections::BTreeMap<String, String>, path: &[String]) -> Option<Cow<'a, str>> {
    map.get(&path.join(".")).map(|value| Cow::Borrowed(value.as_str()))
}

/// A parsed filter: selectors that must all hold.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Selector>);

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Parses one filter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > 16 << 10 {
            return Err(Error::invalid_argument("filter is longer than 16 KiB"));
        }
        let mut parser = Parser { text, at: 0 };
        parser.filter().map_err(|why| {
            Error::invalid_argument(format!("filter {text:?} is malformed at character {}: {why}", parser.at))
        })
    }

    /// Whether every selector holds for the object.
    pub fn matches(&self, object: &dyn Adaptor) -> bool {
        self.0.iter().all(|selector| {
            let field = object.field(&selector.path);
            match &selector.test {
                Test::Present => field.is_some(),
                Test::Equal(value) => field.is_some_and(|field| field == value.as_str()),
                Test::NotEqual(value) => field.is_none_or(|field| field != value.as_str()),
                Test::Matches(regex) => field.is_some_and(|field| regex.is_match(&field)),
            }
        })
    }
}

/// Several filters of which one must match; none at all matches everything. The texts are kept for whoever passes them
/// on.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    sources: Vec<String>,
    parsed: Vec<Filter>,
}

impl Filters {
    /// Parses each text.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Error> {
        let sources: Vec<_> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let parsed = sources.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { sources, parsed })
    }

    /// The texts as they were given.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Whether any filter matches, or there is none.
    pub fn matches(&self, object: &dyn Adaptor) -> bool {
        self.parsed.is_empty() || self.parsed.iter().any(|filter| filter.matches(object))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn filter(&mut self) -> Result<Filter, Problem> {
        let mut selectors = vec![];
        if self.rest().is_empty() {
            return Ok(Filter(selectors));
        }
        loop {
            selectors.push(self.selector()?);
            if self.rest().is_empty() {
                return Ok(Filter(selectors));
            }
            if !self.take(",") {
                return Err(Problem("expected ','"));
            }
            self.at += self.rest().len() - self.rest().trim_start().len(); // Go's client writes ", "
        }
    }

    fn selector(&mut self) -> Result<Selector, Problem> {
        let mut path = vec![self.field()?];
        while self.take(".") {
            path.push(self.field()?);
        }
        let test = if self.take("==") {
            Test::Equal(self.value()?)
        } else if self.take("!=") {
            Test::NotEqual(self.value()?)
        } else if self.take("~=") {
            let value = self.value()?;
            Test::Matches(Regex::new(&value).map_err(|_| Problem("not a regular expression"))?)
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn field(&mut self) -> Result<String, Problem> {
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '/')).unwrap_or(rest.len());
        if end == 0 {
            return Err(Problem("expected a field name"));
        }
        let field = rest[..end].to_owned();
        self.at += end;
        Ok(field)
    }

    fn value(&mut self) -> Result<String, Problem> {
        match self.rest().chars().next() {
            Some(quote @ ('"' | '/' | '|')) if quote == '"' || self.text[..self.at].ends_with("~=") => {
                self.quoted(quote)
            }
            _ => {
                let rest = self.rest();
                let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
                let value = rest[..end].to_owned();
                self.at += end;
                Ok(value)
            }
        }
    }

    /// A string between quotes with Go's escapes.
    fn quoted(&mut self, quote: char) -> Result<String, Problem> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            if c == quote {
                self.at += index + c.len_utf8();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            match escaped {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'x' => out.push(hex(&mut chars, 2)?),
                'u' => out.push(hex(&mut chars, 4)?),
                '\\' | '"' | '\'' => out.push(escaped),
                other if other == quote => out.push(other),
                other if quote != '"' => out.extend(['\\', other]), // a regular expression's own escape
                _ => return Err(Problem("unknown escape")),
            }
        }
        Err(Problem("quote is not closed"))
    }
}

fn hex(chars: &mut impl Iterator<Item = (usize, char)>, digits: u32) -> Result<char, Problem> {
    let mut value = 0;
    for _ in 0..digits {
        let digit = chars.next().and_then(|(_, c)| c.to_digit(16)).ok_or(Problem("bad hexadecimal escape"))?;
        value = value * 16 + digit;
    }
    char::from_u32(value).ok_or(Problem("bad hexadecimal escape"))
}

struct Problem(&'static str);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Object(BTreeMap<String, String>);

    impl Adaptor for Object {
        fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
            match path.split_first()? {
                (name, []) if name == "name" => Some("web".into()),
                (labels, key) if labels == "labels" => map_field(&self.0, key),
                _ => None,
            }
        }
    }

    #[test]
    fn selects() {
        let object = Object([("a.b".to_owned(), "1".to_owned()), ("zone".to_owned(), "eu, west".to_owned())].into());
        let check = |filter: &str, want: bool| {
            assert_eq!(Filter::parse(filter).unwrap().matches(&object), want, "{filter}");
        };
        check("", true);
        check("name", true);
        check("name==web", true);
        check("name!=web", false);
        check("size", false);
        check("size!=3", true);
        check("name~=^w", true);
        check("name~=/^x/", false);
        check("labels.\"a.b\"==1", true);
        check("labels.a.b==1,name==web", true);
        check("labels.a.b==1,name==db", false);
        check("labels.a.b==1, name==web", true);
        check("labels.zone==\"eu, west\"", true);
        check("labels.zone==\"eu\\x2c west\"", true);
    }

    #[test]
    fn malformed_filters_say_where() {
        for bad in ["=", "name=web", "name==a b", "name==web,", "\"x", ".a", "a..b", "name~=(", "name==\"\\q\""] {
            let error = Filter::parse(bad).unwrap_err().to_string();
            assert!(error.contains("malformed at character"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z.,=~!\"\\\\/|x0-9 ]{0,40}|\\PC{0,40}") {
            let object = Object(BTreeMap::new());
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&object);
            }
        }
    }
}
