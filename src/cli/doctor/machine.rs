//! The program, the processor and its threads.

use std::thread::available_parallelism;

use nat_infer::results::{InstructionSet, ThreadCount};
use nat_infer::simd::{ISA_VARIABLE, Isa};

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

/// Every instruction set, where `used` computes.
pub fn instruction_sets(used: Isa) -> Vec<InstructionSet> {
    let asked = std::env::var_os(ISA_VARIABLE).is_some_and(|name| !name.is_empty());
    let set = |isa: Isa| {
        let found = Isa::all_available().any(|other| other == isa);
        let for_bf16 = used.with_bf16() == Some(isa);
        let why = match () {
            () if !found => "this processor lacks it".to_owned(),
            () if isa == used && asked => format!("{ISA_VARIABLE} asks for it"),
            () if isa == used => "the preferred one of this processor".to_owned(),
            () if for_bf16 => "for products with weights of bf16".to_owned(),
            () if asked => format!("{ISA_VARIABLE} asks for {}", used.name()),
            () => format!("{} is preferred", used.name()),
        };
        InstructionSet { name: isa.name().to_owned(), found, used: isa == used || for_bf16, why }
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

    #[test]
    fn every_instruction_set_has_its_reason() {
        for used in Isa::available() {
            let sets = instruction_sets(*used);
            assert_eq!(sets.len(), Isa::all().count());
            let names: Vec<&str> = sets.iter().filter(|set| set.used).map(|set| set.name.as_str()).collect();
            let bf16 = used.with_bf16().map(Isa::name);
            assert_eq!(names, [used.name()].into_iter().chain(bf16).collect::<Vec<_>>());
            for set in &sets {
                assert!(!set.why.is_empty() && (set.found || !set.used), "{set:?}");
            }
        }
    }
}
