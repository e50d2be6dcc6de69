//! How the end of a command is told: a Kubernetes `Status` as JSON, or text in the old versions.

use serde_json::json;

use super::Version;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Well.
    Success,
    /// With another exit code than 0.
    Code(i32),
    /// It could not be done.
    Failed(String),
}

impl Version {
    /// What is written to the error stream; old versions are silent about success.
    pub(crate) fn status(self, ended: &Ended) -> String {
        if self >= Self::V4 { json(ended) } else { text(ended) }
    }
}

fn text(ended: &Ended) -> String {
    match ended {
        Ended::Success => String::new(),
        Ended::Code(code) => format!("command terminated with non-zero exit code: {code}"),
        Ended::Failed(why) => why.clone(),
    }
}

fn json(ended: &Ended) -> String {
    let status = match ended {
        Ended::Success => json!({ "metadata": {}, "status": "Success" }),
        Ended::Code(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": text(ended),
            "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Ended::Failed(why) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {why}"),
            "reason": "InternalError",
            "code": 500,
        }),
    };
    status.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_tells_the_end_in_its_way() {
        let check = |version: Version, ended: Ended, want: &str| assert_eq!(version.status(&ended), want);
        check(Version::V1, Ended::Success, "");
        check(Version::V3, Ended::Code(3), "command terminated with non-zero exit code: 3");
        check(Version::V2, Ended::Failed("no".to_owned()), "no");
        check(Version::V4, Ended::Success, r#"{"metadata":{},"status":"Success"}"#);
        let code = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        check(Version::V5, Ended::Code(3), code);
        let failed = r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no","reason":"InternalError","code":500}"#;
        check(Version::V4, Ended::Failed("no".to_owned()), failed);
    }
}
