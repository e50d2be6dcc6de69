//! One list of spec cases, run by runc first and then by the engine, with the same outcome: what the container prints and
//! how it ends, or that the spec is refused (then the engine's error must name the field).
//!
//! Needs root, a static busybox and runc in `PATH`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;
mod table;

use std::{fmt::Write as _, path::Path, sync::Mutex, thread};

use harness::{Runtime, bundle, leftovers, place, stderr, stdout, write_spec};
use serde_json::Value;
use table::{Case, Expect};

/// What can be seen of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    code: Option<i32>,
    out: String,
    log: String,
    err: String,
}

fn see(runtime: &Runtime, base: &Path, case: &Case, id: &str) -> Seen {
    let bundle = bundle(base, "case");
    let at = bundle.to_str().unwrap();
    (case.prepare)(&bundle);
    let text = case.spec().to_string().replace("@bundle@", at).replace("@id@", id);
    write_spec(&bundle, &serde_json::from_str::<Value>(&text).unwrap());
    let output = runtime.call(&["run", "--bundle", at, id]);
    // What the runtime itself says goes to the same place as what the container says.
    let log = std::fs::read_to_string(bundle.join("log")).unwrap_or_default();
    if !output.status.success() {
        runtime.call(&["delete", "--force", id]);
    }
    let tidy = |text: String| text.replace(at, "@bundle@").replace(id, "@id@");
    let seen =
        Seen { code: output.status.code(), out: tidy(stdout(&output)), log: tidy(log), err: tidy(stderr(&output)) };
    std::fs::remove_dir_all(&bundle).unwrap();
    seen
}

fn judge(case: &Case, theirs: Option<&Seen>, ours: &Seen) -> Option<String> {
    let refused = |seen: &Seen| seen.code != Some(0) && seen.out.is_empty();
    let named = |field: &str| ours.err.contains(field);
    let differ = |why: &str| Some(format!("{}: {why}\n  runc: {theirs:?}\n  ours: {ours:?}", case.name));
    match &case.expect {
        Expect::Same => {
            let theirs = theirs?;
            let same = (theirs.code, &theirs.out, &theirs.log) == (ours.code, &ours.out, &ours.log);
            if same { None } else { differ("not the same") }
        }
        Expect::Refused(field) => match theirs {
            Some(theirs) if !refused(theirs) => differ("runc takes it"),
            _ if !refused(ours) => differ("taken"),
            _ if !named(field) => differ("the field is not named"),
            _ => None,
        },
        Expect::OnlyOursRefuses(field) if !refused(ours) || !named(field) => differ("taken, or the field not named"),
        Expect::OnlyOursRefuses(_) => None,
        Expect::Ours(expected) if ours.out != *expected => differ("not what it should be"),
        Expect::Ours(_) => None,
    }
}

#[test]
fn the_same_outcome_as_with_runc() {
    let base = place();
    let marker = base.path().file_name().unwrap().to_str().unwrap().to_owned();
    let cases = table::cases();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let only = std::env::args().skip_while(|arg| arg != "--").nth(1);
    let runtimes = [
        Runtime { program: harness::runc(), root: base.path().join("runc") },
        Runtime { program: harness::ours(), root: base.path().join("ours") },
    ];
    let (next, failures) = (Mutex::new(cases.iter().enumerate()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((number, case)) = next.lock().unwrap().next() else { return };
                    if only.as_ref().is_some_and(|only| !case.name.contains(only)) {
                        continue;
                    }
                    let id = format!("{marker}-{number}").replace('.', "");
                    let theirs = case.expect.needs_runc().then(|| see(&runtimes[0], base.path(), case, &id));
                    let ours = see(&runtimes[1], base.path(), case, &id);
                    failures.lock().unwrap().extend(judge(case, theirs.as_ref(), &ours));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let mut text = String::new();
    for failure in &failures {
        writeln!(text, "{failure}").unwrap();
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{text}", failures.len(), cases.len());
    let marker = marker.replace('.', "");
    let of_case = |left: String| {
        let number =
            left.split(&format!("{marker}-")).nth(1).and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
        format!("{left} of {:?}", number.and_then(|number| cases.get(number)).map(|case| &case.name))
    };
    assert_eq!(leftovers(&marker).into_iter().map(of_case).collect::<Vec<_>>(), Vec::<String>::new());
}
