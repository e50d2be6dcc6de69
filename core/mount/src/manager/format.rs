//! `format`: words in double braces become what earlier mounts of the list are.

use kevel_model::Mount;

use super::ActiveMount;
use crate::{Error, Result};

/// Fills in source, target and options.
pub(super) fn transform(mount: &mut Mount, active: &[ActiveMount]) -> Result<()> {
    mount.source = fill("source", &mount.source, active)?;
    mount.target = fill("target", &mount.target, active)?;
    for option in &mut mount.options {
        *option = fill("options", option, active)?;
    }
    Ok(())
}

fn fill(field: &str, text: &str, active: &[ActiveMount]) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        let Some((word, after)) = inside.split_once("}}") else {
            return Err(Error::refused(field, format!("{text:?} has \"{{{{\" without \"}}}}\"")));
        };
        filled.push_str(before);
        filled.push_str(&value(field, word, active)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What a word such as `mount 0` or `overlay 0 2` stands for.
fn value(field: &str, text: &str, active: &[ActiveMount]) -> Result<String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let at = |index: &str| {
        let found = index.parse().ok().and_then(|index: usize| active.get(index));
        found.ok_or_else(|| {
            let count = active.len();
            Error::refused(field, format!("{text:?}: {index:?} is none of the {count} mounts before this one"))
        })
    };
    let point = |mount: &ActiveMount| mount.point.to_string_lossy().into_owned();
    match words[..] {
        ["source", index] => Ok(at(index)?.mount.source.clone()),
        ["target", index] => Ok(at(index)?.mount.target.clone()),
        ["mount", index] => Ok(point(at(index)?)),
        // The directories of several mounts, as an overlay wants its lower ones; backwards when the first is the larger.
        ["overlay", start, end] => {
            at(start)?;
            at(end)?;
            let (start, end): (usize, usize) = (start.parse().unwrap_or(0), end.parse().unwrap_or(0));
            let mut points: Vec<_> = active[start.min(end)..=start.max(end)].iter().map(point).collect();
            if start > end {
                points.reverse();
            }
            Ok(points.join(":"))
        }
        _ => Err(Error::refused(field, format!("{text:?} is not source N, target N, mount N or overlay N N"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn words_become_what_is_mounted() {
        let active: Vec<_> = (0..3)
            .map(|index| ActiveMount {
                mount: Mount { source: format!("/s{index}"), target: format!("t{index}"), ..Mount::default() },
                point: format!("/m/{index}").into(),
                at: SystemTime::UNIX_EPOCH,
            })
            .collect();
        let check = |text: &str, want: &str| assert_eq!(fill("options", text, &active).unwrap(), want, "{text}");
        check("ro", "ro");
        check("", "");
        check("{{ mount 0 }}", "/m/0");
        check("{{mount 2}}/upper:0755", "/m/2/upper:0755");
        check("x={{ source 1 }},{{ target 1 }}", "x=/s1,t1");
        check("lowerdir={{ overlay 0 2 }}", "lowerdir=/m/0:/m/1:/m/2");
        check("lowerdir={{ overlay 2 0 }}:/x", "lowerdir=/m/2:/m/1:/m/0:/x");
        check("{{ overlay 1 1 }}", "/m/1");
        for bad in ["{{", "{{ mount }}", "{{ mount 3 }}", "{{ mount -1 }}", "{{ overlay 0 3 }}", "{{ exec 0 }}", "{{}}"]
        {
            let error = fill("options", bad, &active).unwrap_err().to_string();
            assert!(error.starts_with("options: "), "{bad}: {error}");
        }
    }
}
