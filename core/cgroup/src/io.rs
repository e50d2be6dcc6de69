//! What went to and from block devices.

use std::{collections::BTreeMap, path::Path};

use crate::{Place, file::text};

/// Input and output of one device, counted from the cgroup's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// More devices than a node has; what is beyond is left out.
const DEVICES: usize = 256;

impl Io {
    /// Reads a place, by device. Devices that were never used are not told by the kernel.
    pub fn of(place: &Place) -> Vec<Self> {
        match &place.unified {
            Some(dir) => unified(&text(dir.join("io.stat"))),
            None => {
                // The counts of the throttling layer are there whatever the scheduler is; with those below, first.
                let read = |names: [&str; 2]| {
                    let texts = names.map(|name| place.v1("blkio", name).map(text).unwrap_or_default());
                    texts.into_iter().find(|text| text.lines().count() > 1).unwrap_or_default()
                };
                v1(
                    &read(["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"]),
                    &read(["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"]),
                )
            }
        }
    }

    /// The name of the device's node, e.g. `/dev/vda`; the numbers when it has none.
    pub fn device_name(&self) -> String {
        let (major, minor) = self.device;
        let event = text(Path::new("/sys/dev/block").join(format!("{major}:{minor}")).join("uevent"));
        let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
    }
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn unified(text: &str) -> Vec<Io> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let device = device(fields.next()?)?;
        let mut io = Io { device, ..Io::default() };
        let mut any = false;
        for field in fields {
            let Some((name, value)) = field.split_once('=') else { continue };
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.write_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => continue,
            }
            any = true;
        }
        any.then_some(io)
    };
    text.lines().filter_map(line).take(DEVICES).collect()
}

fn v1(bytes: &str, counts: &str) -> Vec<Io> {
    let mut devices: BTreeMap<(u32, u32), Io> = BTreeMap::new();
    let mut add = |text: &str, set: fn(&mut Io, bool, u64)| {
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let (Some(numbers), Some(operation), Some(value)) = (fields.next(), fields.next(), fields.next()) else {
                continue; // the last line is a total
            };
            let (Some(device), Ok(value)) = (device(numbers), value.parse()) else { continue };
            if !devices.contains_key(&device) && devices.len() >= DEVICES {
                continue;
            }
            let io = devices.entry(device).or_insert(Io { device, ..Io::default() });
            match operation {
                "Read" => set(io, true, value),
                "Write" => set(io, false, value),
                _ => {}
            }
        }
    };
    add(bytes, |io, read, value| *(if read { &mut io.read_bytes } else { &mut io.write_bytes }) = value);
    add(counts, |io, read, value| *(if read { &mut io.reads } else { &mut io.writes }) = value);
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::file::fixture;

    const WANT: Io = Io { device: (8, 16), read_bytes: 4096, write_bytes: 512, reads: 2, writes: 1 };

    #[test]
    fn both_versions() {
        let stat = "8:16 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n7:0 \nbad\n";
        let (_dir, place) = fixture::v2(&[("io.stat", stat)]);
        assert_eq!(Io::of(&place), [WANT]);
        let bytes = "8:16 Read 4096\n8:16 Write 512\n8:16 Sync 4608\n8:16 Total 4608\nTotal 4608\n";
        let counts = "8:16 Read 2\n8:16 Write 1\nTotal 3\n";
        let files = [("blkio.throttle.io_service_bytes", bytes), ("blkio.throttle.io_serviced", counts)];
        let (dir, place) = fixture::v1(&files);
        assert_eq!(Io::of(&place), [WANT]);
        let more = "8:16 Read 9999\nTotal 9999\n";
        std::fs::write(dir.path().join("blkio.throttle.io_service_bytes_recursive"), more).unwrap();
        assert_eq!(Io::of(&place)[0].read_bytes, 9999);
    }

    #[test]
    fn a_device_without_a_node_has_its_numbers() {
        assert_eq!(Io { device: (4095, 1), ..Io::default() }.device_name(), "4095:1");
    }

    proptest! {
        #[test]
        fn any_text_is_read(bytes in "([0-9:=a-zA-Z ]{0,20}\n){0,8}", counts in any::<String>()) {
            let _ = (unified(&bytes), v1(&bytes, &counts));
        }
    }
}
