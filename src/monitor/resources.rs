//! What the process took of the machine, as Linux tells it (proc(5): `/proc/self/stat`, `/proc/self/status`).

use serde::Serialize;

/// Processor time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resources {
    /// Seconds of processors in the program itself.
    pub user_seconds: f64,
    /// Seconds of processors in the kernel, for the program.
    pub system_seconds: f64,
    /// Seconds of processors of children that have ended (`pg_dump`, `psql`), both kinds.
    pub children_seconds: f64,
    /// The largest resident size so far, in bytes, children apart.
    pub peak_memory: u64,
}

impl Resources {
    /// What was taken until now; `None` where there is no `/proc`.
    #[must_use]
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Self::parse(&stat, &status, rustix::param::clock_ticks_per_second())
    }

    fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Self> {
        // The second field, the program's name, stands in parentheses and may hold anything. utime is the fourteenth.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "it is 100")]
        let mut seconds = || Some(ticks.next()? / ticks_per_second as f64);
        let (user_seconds, system_seconds) = (seconds()?, seconds()?);
        let children_seconds = seconds()? + seconds()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Self { user_seconds, system_seconds, children_seconds, peak_memory: kib * 1024 })
    }
}

impl std::fmt::Display for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user_seconds, system_seconds, children_seconds, peak_memory } = self;
        write!(f, "{:.1} CPU-s", user_seconds + system_seconds)?;
        if *children_seconds >= 0.05 {
            write!(f, " and {children_seconds:.1} of children")?;
        }
        write!(f, ", at most {} MiB", peak_memory.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 250 50 30 20 20 0 1";
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    2049 kB\n";
        let found = Resources::parse(stat, status, 100).unwrap();
        let expected =
            Resources { user_seconds: 2.5, system_seconds: 0.5, children_seconds: 0.5, peak_memory: 2049 * 1024 };
        assert_eq!(found, expected);
        assert_eq!(found.to_string(), "3.0 CPU-s and 0.5 of children, at most 3 MiB");
        assert_eq!(Resources::parse("7 (a) R 1", status, 100), None);
    }

    #[test]
    fn this_process_has_taken_something() {
        assert!(Resources::now().unwrap().peak_memory > 1 << 20);
    }
}
