//! The program, the processor and its threads.

use std::thread::available_parallelism;

use nat_infer::results::{InstructionSet, ThreadCount};
use nat_infer::simd::{ISA_VARIABLE, Isa, IsaChoice, IsaReason};

/// The features that were built in, in the order of the alphabet.
pub fn features() -> Vec<String> {
    let all =
        [("cli", true), ("cuda", cfg!(feature = "cuda")), ("draw", true), ("hub", true), ("images", true)];
    all.into_iter().filter(|(_, built)| *built).map(|(name, _)| name.to_owned()).collect()
}

/// What the program was built for.
pub fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The processor's name, as Linux tells it.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'))?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Every instruction set, where these compute: in f32, and what multiplies weights of bf16.
pub fn instruction_sets(single: IsaChoice, brain: IsaChoice) -> Vec<InstructionSet> {
    let set = |isa: Isa| {
        let found = Isa::all_available().any(|other| other == isa);
        let multiplies_bf16 = isa.wide() == Some(single.isa);
        let why = match (single.why, brain.why) {
            _ if !found => "this processor lacks it".to_owned(),
            (IsaReason::Asked(_), _) if isa == brain.isa => format!("{ISA_VARIABLE} asks for it"),
            (IsaReason::Asked(_), _) => format!("{ISA_VARIABLE} asks for {}", brain.isa.name()),
            _ if isa == single.isa => "the preferred one of this processor".to_owned(),
            (_, why @ IsaReason::Measured { .. }) if multiplies_bf16 => why.to_string(),
            _ => format!("{} is preferred", single.isa.name()),
        };
        InstructionSet {
            name: isa.name().to_owned(),
            found,
            used: isa == single.isa || isa == brain.isa,
            why,
        }
    };
    Isa::all().map(set).collect()
}

/// The variable that rayon takes the number of its threads from.
const RAYON_THREADS: &str = "RAYON_NUM_THREADS";

/// How many threads a run has where `asked` is what --threads says.
pub fn threads(asked: Option<usize>) -> ThreadCount {
    let used = rayon::current_num_threads();
    let variable = std::env::var(RAYON_THREADS).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (usable, processors) = (available_parallelism().map_or(used, usize::from), processors());
    let why = match processors {
        _ if asked.is_some() => "--threads".to_owned(),
        _ if variable == used => RAYON_THREADS.to_owned(),
        Some(all) if usable < all => {
            format!("of {all} processors, which a container's limit or the process's affinity leaves")
        }
        _ => "all processors".to_owned(),
    };
    ThreadCount { used, why, processors }
}

/// Processors that are on.
#[cfg(unix)]
fn processors() -> Option<usize> {
    // SAFETY: it reads a number of the system's.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).ok().filter(|&count| count > 0)
}

#[cfg(not(unix))]
fn processors() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with their reasons of what is used, and of the others that are found.
    fn said(single: IsaChoice, brain: IsaChoice) -> [Vec<(String, String)>; 2] {
        let sets = instruction_sets(single, brain);
        assert_eq!(sets.len(), Isa::all().count());
        for set in &sets {
            let has = Isa::all_available().any(|isa| isa.name() == set.name);
            assert_eq!((set.found, set.why == "this processor lacks it"), (has, !has), "{set:?}");
        }
        [true, false].map(|used| {
            let own = sets.iter().filter(|set| set.used == used && set.found);
            own.map(|set| (set.name.clone(), set.why.clone())).collect()
        })
    }

    #[test]
    fn every_instruction_set_has_its_reason() {
        use IsaReason::{Asked, Measured, Preferred};
        let choice = |isa, why| IsaChoice { isa, why };
        let pair = |isa: Isa, why: &str| (isa.name().to_owned(), why.to_owned());
        for isa in Isa::all_available() {
            let single = isa.wide().unwrap_or(isa);
            let others = |why: &str| -> Vec<_> {
                let others = Isa::all_available().filter(|&other| other != isa && other != single);
                others.map(|other| pair(other, why)).collect()
            };
            let asks = format!("NAT_INFER_ISA asks for {}", isa.name());
            let [used, found] = said(choice(single, Asked(isa)), choice(isa, Asked(isa)));
            let mut own = vec![pair(isa, "NAT_INFER_ISA asks for it")];
            if single != isa {
                own.insert(0, pair(single, &asks));
            }
            assert_eq!((used, found), (own, others(&asks)));

            let preferred = "the preferred one of this processor";
            let is_preferred = format!("{} is preferred", single.name());
            if isa.wide().is_none() {
                let [used, found] = said(choice(isa, Preferred), choice(isa, Preferred));
                assert_eq!((used, found), (vec![pair(isa, preferred)], others(&is_preferred)));
                continue;
            }
            let faster = Measured { bf16: 340.0, f32: 170.0 };
            let [used, found] = said(choice(single, Preferred), choice(isa, faster));
            let why = "bf16 products are faster here (340 against 170 GFLOP/s a core)";
            assert_eq!(used, [pair(single, preferred), pair(isa, why)]);
            assert_eq!(found, others(&is_preferred));
            let slower = Measured { bf16: 85.0, f32: 170.0 };
            let [used, found] = said(choice(single, Preferred), choice(single, slower));
            let why = "bf16 products are no faster here (85 against 170 GFLOP/s a core)";
            assert_eq!(used, [pair(single, preferred)]);
            assert_eq!(found, [others(&is_preferred), vec![pair(isa, why)]].concat());
        }
    }
}
