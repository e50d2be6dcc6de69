//! What a token stands for, and which requests are refused before there is one.

use kevel_model::{Error, Result};

/// Which streams of a process the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The container.
    pub container_id: String,
    /// The program and its arguments.
    pub cmd: Vec<String>,
    /// The streams.
    pub streams: Streams,
}

/// A container whose streams are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The container.
    pub container_id: String,
    /// The streams.
    pub streams: Streams,
}

/// A pod whose ports are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// The pod.
    pub pod_id: String,
    /// The ports, for clients that cannot name them themselves (WebSocket channels).
    pub ports: Vec<u16>,
}

/// A request that waits for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Exec(Exec),
    Attach(Attach),
    PortForward(PortForward),
}

/// Ports of one request; a channel's number has to fit into a byte, and 255 is taken.
const MAX_PORTS: usize = 127;

impl Streams {
    /// Refuses what no client can want.
    ///
    /// # Errors
    /// Invalid argument.
    pub fn check(self) -> Result<()> {
        if self.tty && self.stderr {
            return Err(Error::invalid_argument("stderr: a terminal has none; tty and stderr exclude each other"));
        }
        if !self.stdin && !self.stdout && !self.stderr {
            return Err(Error::invalid_argument("stdin, stdout, stderr: one of them has to be wanted"));
        }
        Ok(())
    }
}

impl Exec {
    /// Refuses what cannot be done.
    ///
    /// # Errors
    /// Invalid argument.
    pub fn check(&self) -> Result<()> {
        named("container_id", &self.container_id)?;
        if self.cmd.is_empty() {
            return Err(Error::invalid_argument("cmd: empty"));
        }
        self.streams.check()
    }
}

impl Attach {
    /// Refuses what cannot be done.
    ///
    /// # Errors
    /// Invalid argument.
    pub fn check(&self) -> Result<()> {
        named("container_id", &self.container_id)?;
        self.streams.check()
    }
}

impl PortForward {
    /// From the numbers of a request.
    ///
    /// # Errors
    /// Invalid argument.
    pub fn new(pod_id: String, ports: &[i32]) -> Result<Self> {
        named("pod_sandbox_id", &pod_id)?;
        if ports.len() > MAX_PORTS {
            return Err(Error::invalid_argument(format!("port: {} of them, at most {MAX_PORTS}", ports.len())));
        }
        let port = |(index, port): (usize, &i32)| {
            let number = u16::try_from(*port).ok().filter(|port| *port > 0);
            number.ok_or_else(|| Error::invalid_argument(format!("port[{index}]: {port} is not a port")))
        };
        Ok(Self { pod_id, ports: ports.iter().enumerate().map(port).collect::<Result<_>>()? })
    }
}

fn named(field: &str, id: &str) -> Result<()> {
    if id.is_empty() { Err(Error::invalid_argument(format!("{field}: empty"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Streams {
        Streams { stdin, stdout, stderr, tty }
    }

    #[test]
    fn requests_that_nobody_can_want_are_refused() {
        let check = |result: Result<()>, want: &str| match result {
            Ok(()) => assert_eq!(want, ""),
            Err(error) => assert!(error.to_string().contains(want) && !want.is_empty(), "{error}, not {want:?}"),
        };
        let exec = |cmd: &[&str], streams| Exec {
            container_id: "c".to_owned(),
            cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
            streams,
        };
        check(exec(&["a"], streams(true, true, true, false)).check(), "");
        check(exec(&["a"], streams(true, true, false, true)).check(), "");
        check(exec(&["a"], streams(false, true, true, true)).check(), "exclude");
        check(exec(&["a"], streams(false, false, false, true)).check(), "wanted");
        check(exec(&[], streams(true, false, false, false)).check(), "cmd");
        let attach = Attach { container_id: String::new(), streams: streams(true, false, false, false) };
        check(attach.check(), "container_id");
        let forward = |ports: &[i32]| PortForward::new("p".to_owned(), ports).map(drop);
        check(forward(&[]), "");
        check(forward(&[1, 65535]), "");
        check(forward(&[80, -1]), "port[1]: -1");
        check(forward(&[0]), "port[0]");
        check(forward(&[65536]), "port[0]");
        check(forward(&[1; 128]), "128");
        check(PortForward::new(String::new(), &[]).map(drop), "pod_sandbox_id");
    }
}
