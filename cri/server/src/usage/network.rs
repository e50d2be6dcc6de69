//! What interfaces of a network namespace carried.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use kevel_cri_network::Netns;

/// More interfaces than a pod has; those beyond are left out.
const INTERFACES: usize = 256;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_errors: u64,
    pub(crate) tx_dropped: u64,
}

/// The interfaces of a pod's network namespace, `lo` excepted. They are read through the pod's process if it is in that
/// namespace, else by a thread that enters it: not every pod has a process, and not every process is in it.
pub(crate) async fn interfaces(pid: u32, netns: &str) -> io::Result<Vec<Interface>> {
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let proc = format!("/proc/{pid}/ns/net");
    let inside = pid != 0 && inode(Path::new(&proc)).is_some_and(|own| Some(own) == inode(Path::new(netns)));
    let text = if inside {
        fs::read_to_string(format!("/proc/{pid}/net/dev"))?
    } else {
        let read = Netns::at(Path::new(netns)).run(|| fs::read_to_string("/proc/thread-self/net/dev")).await;
        read.map_err(io::Error::other)??
    };
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        })
    };
    let all = text.lines().skip(2).filter_map(line);
    all.filter(|interface| interface.name != "lo").take(INTERFACES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let text = "Inter-| Receive | Transmit\n face |bytes ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
            eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\nbad\n";
        let want = Interface {
            name: "eth0".into(),
            rx_bytes: 10,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 20,
            tx_packets: 5,
            tx_errors: 6,
            tx_dropped: 7,
        };
        assert_eq!(parse(text), [want]);
    }

    #[tokio::test]
    async fn the_processes_own_namespace_is_read_through_it() {
        let own = interfaces(std::process::id(), "/proc/self/ns/net").await.unwrap();
        assert!(own.iter().all(|interface| interface.name != "lo"));
        assert!(interfaces(0, "/nowhere").await.is_err());
    }
}
