//! Whether the machine had other things to do while it was measured.

use std::fs::read_to_string;
use std::time::{Duration, Instant};

use crate::simd::{Isa, multiply_add_rate};

/// A measurement on the CPU that is under way.
pub(super) struct LoadWatch {
    isa: Isa,
    /// Multiply-adds of registers alone, before, in GFLOP/s.
    rate: f64,
    begin: Instant,
    ticks: Option<Ticks>,
}

/// What was seen of the machine during a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MachineLoad {
    /// Share of the processors' time that went to others: other programs, and other machines on the same host.
    pub(super) busy: Option<f64>,
    /// Multiply-adds of registers alone, before and after, in GFLOP/s.
    pub(super) rates: Option<[f64; 2]>,
}

impl LoadWatch {
    /// Begins to watch what processors do that compute with this instruction set.
    pub(super) fn begin(isa: Isa) -> Self {
        let rate = multiply_add_rate(isa);
        Self { isa, rate, begin: Instant::now(), ticks: Ticks::now() }
    }

    /// What was seen since.
    pub(super) fn end(self) -> MachineLoad {
        /// Less is too few ticks for a share.
        const LONG_ENOUGH: Duration = Duration::from_secs(1);
        let before = self.ticks.filter(|_| self.begin.elapsed() >= LONG_ENOUGH);
        let busy = before.zip(Ticks::now()).and_then(|(before, after)| before.others(after));
        MachineLoad { busy, rates: Some([self.rate, multiply_add_rate(self.isa)]) }
    }
}

impl MachineLoad {
    /// The higher rate of multiply-adds, in GFLOP/s.
    pub(super) fn peak(&self) -> Option<f64> {
        self.rates.map(|[before, after]| before.max(after))
    }

    /// Why times are not to be trusted, in a sentence: of passes that took so many seconds, in ascending order.
    pub(super) fn doubt(&self, sorted: &[f64]) -> Option<String> {
        /// What a quiet system does beside, and what ticks err by.
        const LITTLE: f64 = 0.05;
        /// How much a clock may change.
        const STEADY: f64 = 0.85;
        /// How much longer than the fastest pass the median one may take.
        const ALIKE: f64 = 1.25;
        /// Fewer passes have no median to speak of, and shorter ones differ by themselves.
        const ENOUGH: usize = 5;
        const SHORTEST: f64 = 1e-3;
        if let Some(busy) = self.busy.filter(|&busy| busy > LITTLE) {
            let share = 100.0 * busy;
            return Some(format!(
                "this machine was busy: others (programs, or machines on the same host) took {share:.0} % of its \
                 processors while it measured, so the times may be too long"
            ));
        }
        if let Some([before, after]) = self.rates
            && before.min(after) < STEADY * before.max(after)
        {
            return Some(format!(
                "this machine was busy or its clock changed: multiply-adds ran at {before:.0} GFLOP/s before the \
                 passes and at {after:.0} after them, so the times say little"
            ));
        }
        // A GPU's clock is not this machine's.
        self.rates?;
        let (fastest, median) = (sorted.first()?, sorted[sorted.len() / 2]);
        if sorted.len() >= ENOUGH && *fastest > SHORTEST && median > ALIKE * fastest {
            let times = median / fastest;
            return Some(format!(
                "this machine was busy or its clock changed: the median pass took {times:.2} times as long as the \
                 fastest one, so the times are too long"
            ));
        }
        None
    }
}

/// What the processors did that this process may run on, in ticks of the system's clock since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    /// All of it.
    all: u64,
    /// Nothing.
    idle: u64,
    /// This process, all threads.
    own: u64,
}

impl Ticks {
    /// Those of now, where Linux tells.
    fn now() -> Option<Self> {
        let [processors, own, status] =
            ["stat", "self/stat", "self/status"].map(|name| read_to_string(format!("/proc/{name}")).ok());
        Self::read(&processors?, &own?, &status?)
    }

    /// Of `/proc/stat`, and of `stat` and `status` of the process.
    fn read(processors: &str, own: &str, status: &str) -> Option<Self> {
        let mine = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
        let (mut all, mut idle) = (0, 0);
        for line in processors.lines() {
            let Some((name, counts)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else {
                continue;
            };
            // The line without a number is of all.
            if !name.parse().is_ok_and(|number| listed(mine, number)) {
                continue;
            }
            // user, nice, system, idle, iowait, irq, softirq, steal; guests' time, which follows, is in the user's.
            let counts: Vec<u64> = counts.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
            all += counts.iter().sum::<u64>();
            idle += counts.iter().skip(3).take(2).sum::<u64>();
        }
        // The program's name, in brackets, may have any character. User's and system's time are the 14th and 15th field.
        let fields = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        let own: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        (all > 0 && own.len() == 2).then(|| Self { all, idle, own: own.iter().sum() })
    }

    /// The share of all time from these to `after` that others had.
    fn others(self, after: Self) -> Option<f64> {
        let [all, idle, own] = [(self.all, after.all), (self.idle, after.idle), (self.own, after.own)]
            .map(|(a, b)| b.saturating_sub(a));
        (all > 0).then(|| all.saturating_sub(idle + own) as f64 / all as f64)
    }
}

/// Whether a list of Linux's, `0-3,8`, has a number.
fn listed(list: &str, number: usize) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux writes them, of four processors.
    const PROCESSORS: &str = "\
cpu  1000 0 1000 4000 0 0 0 0 0 0
cpu0 100 1 20 1000 30 4 5 60 7 0
cpu1 200 2 40 2000 60 8 10 120 14 0
cpu2 1 1 1 1 1 1 1 1 1 1
cpu10 5 5 5 5 5 5 5 5 5 5
intr 12345 1 2
ctxt 99
";
    const OWN: &str = "42 (a )b (c) S 1 42 42 0 -1 4194560 1 2 3 4 70 80 5 6 20 0 3 0 9 10 11\n";

    #[test]
    fn ticks_are_of_the_processors_that_the_process_may_have() {
        for (list, all, idle) in
            [("0", 1220, 1030), ("0-1", 3660, 3090), ("1", 2440, 2060), ("0,2-9", 1228, 1032), ("10", 40, 10)]
        {
            let status =
                format!("Name:\tcpu1\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\nMems_allowed:\t1\n");
            let want = Ticks { all, idle, own: 150 };
            assert_eq!(Ticks::read(PROCESSORS, OWN, &status), Some(want), "{list}");
        }
        let status = "Cpus_allowed_list:\t0\n";
        for (processors, own, status) in [
            ("", OWN, status),
            (PROCESSORS, "", status),
            (PROCESSORS, "42 (a) S 1", status),
            (PROCESSORS, OWN, ""),
            (PROCESSORS, OWN, "Cpus_allowed_list:\t7\n"),
        ] {
            assert_eq!(Ticks::read(processors, own, status), None);
        }
        // Here, too, and they grow.
        if cfg!(target_os = "linux") {
            let (first, second) = (Ticks::now().unwrap(), Ticks::now().unwrap());
            assert!(second.all >= first.all && second.own >= first.own && first.idle < first.all);
        }
    }

    #[test]
    fn others_have_what_is_left_of_all_time() {
        let before = Ticks { all: 1000, idle: 500, own: 100 };
        for ([all, idle, own], share) in [
            ([200, 0, 200], Some(0.0)),
            ([200, 100, 100], Some(0.0)),
            ([200, 54, 100], Some(0.23)),
            ([200, 0, 0], Some(1.0)),
            // Clocks that count differently.
            ([200, 100, 101], Some(0.0)),
            ([0, 0, 0], None),
        ] {
            let after = Ticks { all: 1000 + all, idle: 500 + idle, own: 100 + own };
            assert_eq!(before.others(after), share, "{after:?}");
        }
    }

    #[test]
    fn what_makes_times_doubtful_is_said() {
        let (even, uneven) = ([0.01; 5], [0.01, 0.01, 0.0131, 0.014, 0.02]);
        let rates = |before, after| Some([before, after]);
        for (busy, rates, sorted, says) in [
            (Some(0.02), rates(340.0, 330.0), &even[..], None),
            (None, None, &even, None),
            (None, None, &[0.01], None),
            (None, None, &uneven, None),
            (
                Some(0.23),
                rates(340.0, 100.0),
                &uneven,
                Some(
                    "this machine was busy: others (programs, or machines on the same host) took 23 % of its \
                     processors while it measured, so the times may be too long",
                ),
            ),
            (
                Some(0.0),
                rates(340.0, 250.2),
                &uneven,
                Some(
                    "this machine was busy or its clock changed: multiply-adds ran at 340 GFLOP/s before the passes \
                     and at 250 after them, so the times say little",
                ),
            ),
            (
                None,
                rates(300.0, 340.0),
                &uneven,
                Some(
                    "this machine was busy or its clock changed: the median pass took 1.31 times as long as the \
                     fastest one, so the times are too long",
                ),
            ),
            // Few passes, and short ones.
            (None, None, &uneven[..2], None),
            (None, None, &[1e-5, 1e-5, 2e-5, 2e-5, 2e-5], None),
        ] {
            let load = MachineLoad { busy, rates };
            assert_eq!(load.doubt(sorted).as_deref(), says, "{load:?}");
        }
        assert_eq!(MachineLoad { busy: None, rates: rates(1.0, 2.0) }.peak(), Some(2.0));
    }
}
