//! Image references: what is read is written the same, and a complete one means itself.
#![no_main]

use kevel_model::{Digest, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::familiar(text) {
        assert_eq!(Reference::familiar(&reference.to_string()).as_ref(), Ok(&reference));
    }
    for reference in [Reference::familiar(text), Reference::complete(text)].into_iter().flatten() {
        let written = reference.to_string();
        assert_eq!(Reference::complete(&written).as_ref(), Ok(&reference), "{written:?}");
        // It becomes part of URLs and of paths.
        for part in [reference.repository(), reference.object()] {
            assert!(part.split('/').all(|word| !word.is_empty() && word != "." && word != ".."), "{written:?}");
            assert!(part.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?}");
        }
        assert!(!reference.registry().contains(['/', '@', '\\', ' ', '+']), "{written:?}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
});
