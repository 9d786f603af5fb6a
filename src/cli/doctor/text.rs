//! A diagnosis for people.

use nat_convert::terminal::one_line;
use nat_infer::results::{CacheFolder, CheckResult, Diagnosis, GpuFacts};

/// Where the second column begins.
const INDENT: usize = 14;

/// The whole diagnosis, in parts that each have a title.
pub fn of(diagnosis: &Diagnosis) -> String {
    let Diagnosis { version, features, target, processor, threads, memory, gpu, checks, .. } = diagnosis;
    let mut text = String::new();
    part(&mut text, "nat-infer", [format!("{version} for {target}, with {}", features.join(", "))]);
    part(&mut text, "processor", processor.clone());
    let sets = diagnosis.instruction_sets.iter().map(|set| {
        let state = match (set.found, set.used) {
            (_, true) => "used",
            (true, false) => "found",
            (false, false) => "not found",
        };
        format!("{:11} {state}: {}", set.name, set.why)
    });
    part(&mut text, "instructions", sets);
    part(&mut text, "threads", [format!("{}: {}", threads.used, threads.why)]);
    part(&mut text, "memory", memory.map(|bytes| format!("{} available", size(bytes))));
    part(&mut text, "GPU", gpu_lines(gpu));
    part(&mut text, "caches", diagnosis.caches.iter().map(cache));
    part(&mut text, "variables", diagnosis.variables.iter().map(|v| format!("{}={}", v.name, v.value)));
    part(&mut text, "self-test", summary(checks));
    part(&mut text, "OFF", checks.iter().filter(|check| !check.passed).map(wrong));
    text
}

/// Lines under a title, if there are any.
fn part(text: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    for (i, line) in lines.into_iter().enumerate() {
        let title = if i == 0 { title } else { "" };
        text.push_str(format!("{title:INDENT$} {}", one_line(&line)).trim_end());
        text.push('\n');
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.into_iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or(format!("{bytes} bytes"), |(name, unit)| format!("{:.1} {name}", bytes as f64 / unit as f64))
}

fn gpu_lines(gpu: &GpuFacts) -> Vec<String> {
    let mut lines = Vec::new();
    let facts = [
        gpu.name.clone(),
        gpu.compute_capability.as_ref().map(|capability| format!("compute capability {capability}")),
        gpu.memory.map(size),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    match &gpu.why {
        Some(why) if facts.is_empty() => lines.push(format!("none: {why}")),
        Some(why) => lines.push(format!("{}; not used: {why}", facts.join(", "))),
        None => lines.push(facts.join(", ")),
    }
    let driver = [
        gpu.driver.as_ref().map(|version| format!("driver {version}")),
        gpu.cuda.as_ref().map(|version| format!("CUDA up to {version}")),
    ];
    let driver: Vec<String> = driver.into_iter().flatten().collect();
    if !driver.is_empty() {
        lines.push(driver.join(", "));
    }
    let state = |found| if found { "found" } else { "not found" };
    lines.extend(gpu.libraries.iter().map(|library| format!("{:18} {}", library.name, state(library.found))));
    lines
}

fn cache(folder: &CacheFolder) -> String {
    let CacheFolder { name, path, exists, writable, free } = folder;
    let Some(path) = path else { return format!("{name:11} nowhere: HOME is not set") };
    let state = match (exists, writable) {
        (true, true) => "",
        (true, false) => ", can't be written to",
        (false, true) => ", not there yet",
        (false, false) => ", not there and can't be made",
    };
    let free = free.map_or_else(String::new, |bytes| format!(", {} free", size(bytes)));
    format!("{name:11} {path}{state}{free}")
}

/// A line for each place and type: how many are right, and which is nearest to its bound.
fn summary(checks: &[CheckResult]) -> Vec<String> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for check in checks.iter().filter(|check| !check.dtype.is_empty()) {
        let kind = (check.on.as_str(), check.dtype.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let line = |(on, dtype)| {
        let own =
            || checks.iter().filter(move |check| (check.on.as_str(), check.dtype.as_str()) == (on, dtype));
        let right = own().filter(|check| check.passed).count();
        let share = |check: &CheckResult| check.error.unwrap_or(f64::INFINITY) / check.tolerance;
        let nearest = own().filter(|check| check.passed).max_by(|a, b| share(a).total_cmp(&share(b)));
        let nearest = nearest.map_or_else(String::new, |check| {
            let error = check.error.unwrap_or_default();
            format!(
                "; at most {error:.0e} off where {:.0e} may be, {} {}",
                check.tolerance, check.what, check.pass
            )
        });
        format!("{on:11} {dtype:5} {right} of {} right{nearest}", own().count())
    };
    kinds.into_iter().map(line).collect()
}

fn wrong(check: &CheckResult) -> String {
    let CheckResult { what, pass, dtype, on, stage, error, tolerance, problem, .. } = check;
    let subject = [on, dtype, what, pass].map(String::as_str);
    let subject: Vec<&str> = subject.into_iter().filter(|word| !word.is_empty()).collect();
    let said = match (problem, error) {
        (Some(problem), _) => problem.clone(),
        (None, Some(error)) => format!("{stage} is {error:.1e} off, where {tolerance:.0e} may be"),
        (None, None) => format!("{stage} has what is no number"),
    };
    format!("{}: {said}", subject.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &str, error: Option<f64>, problem: Option<&str>) -> CheckResult {
        CheckResult {
            what: what.to_owned(),
            pass: "forward".to_owned(),
            dtype: "f32".to_owned(),
            on: "avx2".to_owned(),
            stage: "logits".to_owned(),
            error,
            tolerance: 5e-6,
            passed: problem.is_none() && error.is_some_and(|error| error <= 5e-6),
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn checks_are_summed_up_and_what_is_wrong_is_named() {
        let checks = [
            check("nat", Some(1e-6), None),
            check("dinat", Some(2e-6), None),
            check("upernet", Some(0.31), None),
            check("isotropic", None, None),
            check("vit-rpb", None, Some("no memory")),
        ];
        assert_eq!(
            summary(&checks),
            ["avx2        f32   2 of 5 right; at most 2e-6 off where 5e-6 may be, dinat forward"]
        );
        let wrong: Vec<String> = checks.iter().filter(|check| !check.passed).map(wrong).collect();
        assert_eq!(
            wrong,
            [
                "avx2 f32 upernet forward: logits is 3.1e-1 off, where 5e-6 may be",
                "avx2 f32 isotropic forward: logits has what is no number",
                "avx2 f32 vit-rpb forward: no memory",
            ]
        );
        assert_eq!([12, 3 << 20, 5 << 29].map(size), ["12 bytes", "3.0 MiB", "2.5 GiB"]);
    }
}
