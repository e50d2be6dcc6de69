//! What interfaces of a process's network carried.

use std::{fs, io};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

/// The interfaces that a process sees, `lo` excepted.
pub(crate) fn interfaces(pid: u32) -> io::Result<Vec<Interface>> {
    Ok(parse(&fs::read_to_string(format!("/proc/{pid}/net/dev"))?))
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_errors: at(2)?,
            tx_bytes: at(8)?,
            tx_errors: at(10)?,
        })
    };
    text.lines().skip(2).filter_map(line).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let text = "Inter-| Receive | Transmit\n face |bytes ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
            eth0: 10 2 3 0 0 0 0 0 20 4 5 0 0 0 0 0\nbad\n";
        let want = Interface { name: "eth0".into(), rx_bytes: 10, rx_errors: 3, tx_bytes: 20, tx_errors: 5 };
        assert_eq!(parse(text), [want]);
    }
}
