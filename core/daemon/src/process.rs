//! What the daemon's own process uses, under the names that every Prometheus exporter has for it.

use std::fs;

use prometheus::{
    Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Reads `/proc/self` when it is asked.
pub(crate) struct Process {
    cpu: Gauge,
    resident: Gauge,
    virtual_memory: Gauge,
    started: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    threads: Gauge,
}

/// Clock ticks of a second in `/proc`, whatever the kernel's own are (USER_HZ).
const TICKS: f64 = 100.0;

impl Process {
    pub(crate) fn new() -> Self {
        #[expect(clippy::unwrap_used, reason = "the names are fixed and valid")]
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help)).unwrap();
        Self {
            cpu: gauge("process_cpu_seconds_total", "CPU time of the daemon in seconds"),
            resident: gauge("process_resident_memory_bytes", "memory of the daemon in bytes"),
            virtual_memory: gauge("process_virtual_memory_bytes", "address space of the daemon in bytes"),
            started: gauge("process_start_time_seconds", "start of the daemon in seconds since the epoch"),
            open_files: gauge("process_open_fds", "open file descriptors of the daemon"),
            max_files: gauge("process_max_fds", "limit of open file descriptors of the daemon"),
            threads: gauge("process_threads", "threads of the daemon"),
        }
    }

    fn all(&self) -> [&Gauge; 7] {
        [
            &self.cpu,
            &self.resident,
            &self.virtual_memory,
            &self.started,
            &self.open_files,
            &self.max_files,
            &self.threads,
        ]
    }

    /// Reads; what cannot be read stays as it was.
    fn read(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, a name in brackets, may hold spaces; the third field follows the last bracket.
        let fields: Vec<f64> = stat.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        self.cpu.set((field(14)? + field(15)?) / TICKS);
        self.threads.set(field(20)?);
        self.virtual_memory.set(field(23)?);
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
        self.resident.set(resident.trim().parse::<f64>().ok()? * 1024.0);
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        self.started.set(boot + field(22)? / TICKS);
        self.open_files.set(f64::from(u32::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?));
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        self.max_files.set(line.split_whitespace().next()?.parse().ok()?);
        Some(())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _ = self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process() {
        let process = Process::new();
        process.read().unwrap();
        assert!(process.resident.get() > 1e6 && process.open_files.get() >= 3.0 && process.threads.get() >= 1.0);
        let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..3600.0).contains(&(age - process.started.get())), "{}", process.started.get());
        assert_eq!(process.collect().len(), 7);
    }
}
