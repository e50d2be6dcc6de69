//! `WWW-Authenticate`: the challenges that a registry answers 401 with (RFC 9110, sections 11.2 to 11.6).

use std::collections::BTreeMap;

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`, ….
    pub scheme: String,
    /// Its parameters, names in lower case; the first of each name counts.
    pub parameters: BTreeMap<String, String>,
}

/// No header of a registry is longer, and nothing after this many bytes is read.
const MAX_HEADER: usize = 8 << 10;

/// All challenges of one header value. What does not parse ends the list; what was read before it counts.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut end = header.len().min(MAX_HEADER);
    while !header.is_char_boundary(end) {
        end -= 1;
    }
    let mut rest = Cursor(&header[..end]);
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let name = rest.token();
        if name.is_empty() {
            return challenges;
        }
        let spaced = rest.skip(|c| c == ' ' || c == '\t');
        // `name=value` is a parameter of the challenge before it; `name` with anything else behind it is a scheme.
        let parameter = rest.0.starts_with('=') && !challenges.is_empty() && (!spaced || !rest.0.starts_with("=="));
        if parameter {
            rest.0 = &rest.0[1..];
            rest.skip(|c| c == ' ' || c == '\t');
            let Some(value) = rest.value() else { return challenges };
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.entry(name.to_ascii_lowercase()).or_insert(value);
            }
        } else {
            challenges.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: BTreeMap::new() });
            if !spaced && !rest.0.is_empty() && !rest.0.starts_with(',') {
                return challenges;
            }
        }
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Skips characters; answers whether there were any.
    fn skip(&mut self, which: impl Fn(char) -> bool) -> bool {
        let rest = self.0.trim_start_matches(which);
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any
    }

    fn token(&mut self) -> &'a str {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// A token, or a quoted string with its backslashes resolved. Unquoted values are taken up to a comma or blank:
    /// registries write URLs without quotes.
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self.0.find(|c: char| c == ',' || c == '"' || c.is_ascii_whitespace()).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return Some(value.to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(header: &str, want: &[(&str, &[(&str, &str)])]) {
        let got = parse(header);
        let want: Vec<Challenge> = want
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).to_owned(),
                parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            })
            .collect();
        assert_eq!(got, want, "{header:?}");
    }

    #[test]
    fn reads_what_registries_send() {
        check("Basic realm=\"Registry\"", &[("basic", &[("realm", "Registry")])]);
        check("basic", &[("basic", &[])]);
        check(
            "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"",
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.example/token"),
                    ("service", "registry"),
                    ("scope", "repository:a/b:pull,push"),
                ],
            )],
        );
        check("Bearer realm=https://a/t , service=x", &[("bearer", &[("realm", "https://a/t"), ("service", "x")])]);
        check(
            "Negotiate, Bearer REALM = \"q\\\"q\", Basic realm=x",
            &[("negotiate", &[]), ("bearer", &[("realm", "q\"q")]), ("basic", &[("realm", "x")])],
        );
        check("Bearer realm=\"a\",realm=\"b\"", &[("bearer", &[("realm", "a")])]);
        check("", &[]);
        check("=x", &[]);
        check("Bearer realm=\"open", &[("bearer", &[])]);
        check("Bearer@x", &[("bearer", &[])]);
    }

    proptest! {
        #[test]
        fn never_panics(header in "\\PC{0,200}") {
            parse(&header);
        }

        #[test]
        fn reads_back_what_was_quoted(
            scheme in "[A-Za-z]{1,12}",
            parameters in proptest::collection::btree_map("[a-z]{1,10}", "\\PC{0,30}", 1..5),
        ) {
            let list: Vec<String> = parameters
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let challenge = Challenge { scheme: scheme.to_ascii_lowercase(), parameters };
            prop_assert_eq!(parse(&format!("{scheme} {}", list.join(", "))), vec![challenge]);
        }
    }
}
