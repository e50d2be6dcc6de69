//! The command line and the environment that a daemon starts a shim with. Flags are Go's: one dash or two, the value after
//! `=` or as the next word, a switch alone or with `=true`.

use crate::Error;

/// What the command line and the environment say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The id of the container or sandbox.
    pub id: String,
    /// The namespace.
    pub namespace: String,
    /// The address of the daemon's gRPC socket.
    pub address: String,
    /// The bundle, when it is not the working directory.
    pub bundle: String,
    /// The daemon's binary.
    pub publish_binary: String,
    /// Whether to say more.
    pub debug: bool,
    /// `TTRPC_ADDRESS`: where events go.
    pub ttrpc_address: String,
    /// `MAX_SHIM_VERSION`, which daemons since containerd 1.7 set.
    pub max_version: Option<String>,
    /// `SCHED_CORE`: the shim and its children get a core scheduling cookie of their own.
    pub sched_core: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Version,
    Info,
    Start,
    Delete,
    Serve,
}

/// Reads a command line, without the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<(Action, Facts), Error> {
    let mut facts = Facts::default();
    let (mut version, mut info) = (false, false);
    let mut words = words.into_iter();
    let mut action = None;
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|flag| !flag.is_empty())
        else {
            action = Some(word);
            break; // Go stops at the first word that is no flag
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "v" | "version" => version = switch(name, given)?,
            "info" => info = switch(name, given)?,
            "debug" => facts.debug = switch(name, given)?,
            _ => {
                let value = given.or_else(|| words.next());
                let value = value.ok_or_else(|| Error::Usage(format!("flag -{name} lacks a value")))?;
                *match name {
                    "id" => &mut facts.id,
                    "namespace" => &mut facts.namespace,
                    "address" => &mut facts.address,
                    "bundle" => &mut facts.bundle,
                    "publish-binary" => &mut facts.publish_binary,
                    // Of shims that make their sockets by name; the socket is inherited here.
                    "socket" | "debug-socket" => continue,
                    _ => return Err(Error::Usage(format!("unknown flag -{name}"))),
                } = value;
            }
        }
    }
    let action = match action.as_deref() {
        _ if version => return Ok((Action::Version, facts)),
        _ if info => return Ok((Action::Info, facts)),
        None | Some("") => Action::Serve,
        Some("start") => Action::Start,
        Some("delete") => Action::Delete,
        Some(other) => return Err(Error::Usage(format!("unknown action {other:?}"))),
    };
    facts.check()?;
    Ok((action, facts))
}

fn switch(name: &str, given: Option<String>) -> Result<bool, Error> {
    match given.as_deref() {
        None | Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(other) => Err(Error::Usage(format!("flag -{name}: {other:?} is neither true nor false"))),
    }
}

impl Facts {
    /// Ids and namespaces become names of files; what could lead elsewhere is refused.
    fn check(&self) -> Result<(), Error> {
        for (flag, name) in [("namespace", &self.namespace), ("id", &self.id)] {
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.is_empty() {
                return Err(Error::Usage(format!("flag -{flag} is missing or empty")));
            }
            if name.len() > 255 || !name.chars().all(fine) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return Err(Error::Usage(format!("flag -{flag}: {name:?} is no name of a {flag}")));
            }
        }
        Ok(())
    }

    /// The same with what the environment says.
    #[expect(clippy::disallowed_methods, reason = "the protocol tells shims by their environment")]
    pub(crate) fn with_environment(mut self) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.ttrpc_address = variable("TTRPC_ADDRESS").unwrap_or_default();
        self.max_version = variable("MAX_SHIM_VERSION");
        self.sched_core = variable("SCHED_CORE").is_some();
        self
    }

    /// Where events go: what the environment says, or the socket beside the daemon's own.
    pub fn events_address(&self) -> String {
        if self.ttrpc_address.is_empty() && !self.address.is_empty() {
            return format!("{}.ttrpc", self.address);
        }
        self.ttrpc_address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<(Action, Facts), Error> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_line_of_a_daemon() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id a1 -debug start";
        let (action, facts) = of(line).unwrap();
        let want = Facts {
            id: "a1".into(),
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            publish_binary: "/bin/c".into(),
            debug: true,
            ..Facts::default()
        };
        assert_eq!((action, &facts), (Action::Start, &want));
        assert_eq!(facts.events_address(), "/run/c.sock.ttrpc");
        let (action, facts) = of("--namespace=n --id=x -bundle /b delete -whatever").unwrap();
        assert_eq!((action, facts.bundle.as_str()), (Action::Delete, "/b"));
        assert_eq!(of("-namespace n -id x -debug=false -socket s").unwrap().0, Action::Serve);
        assert_eq!(of("-v").unwrap().0, Action::Version);
        assert_eq!(of("-info").unwrap().0, Action::Info);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("-id x start", "-namespace"),
            ("-namespace n start", "-id"),
            ("-namespace n -id ../x start", "../x"),
            ("-namespace n -id .. start", "\"..\""),
            ("-namespace n -id x stop", "stop"),
            ("-namespace n -id x -nonsense 1 start", "-nonsense"),
            ("-namespace n -id", "-id"),
            ("-namespace n -id x -debug=maybe", "maybe"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
