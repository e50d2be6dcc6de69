//! Filters: no text upsets their parser, and what is parsed can be matched.
#![no_main]

use std::borrow::Cow;

use kevel_model::{Adaptor, Filter};
use libfuzzer_sys::fuzz_target;

struct Object<'a>(&'a str);

impl Adaptor for Object<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        (path.len() < 3).then_some(self.0.into())
    }
}

fuzz_target!(|input: (&str, &str)| {
    let (text, value) = input;
    if let Ok(filter) = Filter::parse(text) {
        filter.matches(&Object(value));
    }
});
