//! `nat-infer doctor`, as it is run: what it says of this machine, and that it fails where something is wrong.

use std::collections::BTreeSet;

use nat_infer::results::{CheckResult, Diagnosis};
use nat_infer::simd::Isa;
use nat_testing::place::{Done, Place};

fn place() -> Place {
    Place::of(env!("CARGO_BIN_EXE_nat-infer"))
}

/// Variables with what must not be seen.
const SECRETS: [(&str, &str); 6] = [
    ("HF_TOKEN", "hf_verysecret"),
    ("HF_ENDPOINT", "http://user:verysecret@hub.example/mirror?key=verysecret"),
    ("NAT_INFER_MIRROR", "https://verysecret@store.example"),
    ("HTTPS_PROXY", "user:verysecret@proxy.example:3128"),
    ("HF_TOKEN_PATH", "/home/me/token"),
    ("RAYON_NUM_THREADS", "1"),
];

fn with_secrets(place: &Place, arguments: &[&str]) -> Done {
    Done(place.command(arguments).envs(SECRETS).output().unwrap())
}

/// What every place that computes has to have checked: where, what, pass and type. Where only products are in bf16 that is
/// the networks with weights of this type.
fn expected(isa: Isa) -> BTreeSet<[String; 4]> {
    let mut all = BTreeSet::new();
    let mut add = |row: [&str; 3]| {
        all.insert([isa.name(), row[0], row[1], row[2]].map(str::to_owned));
    };
    for dtype in ["f64", "f32", "f16", "bf16"] {
        for pass in ["forward", "backward"] {
            if isa.wide().is_none() {
                add(["operator", pass, dtype]);
            }
            let classifiers = ["nat", "dinat", "dinat-s", "isotropic", "vit-rpb"];
            let others = ["mask-rcnn", "cascade-mask-rcnn", "upernet"];
            let networks = classifiers.iter().chain(others.iter().filter(|_| pass == "forward"));
            if dtype == "bf16" || (dtype != "f64" && isa.wide().is_none()) {
                networks.for_each(|network| add([network, pass, dtype]));
            }
        }
    }
    all
}

#[test]
fn everything_is_checked_on_every_instruction_set() {
    let place = place();
    let done = with_secrets(&place, &["doctor", "--json", "--device", "cpu"]);
    let (stderr, status) = (done.stderr(), done.status());
    let text = done.stdout();
    let diagnosis: Diagnosis = serde_json::from_str(&text).unwrap();
    let Diagnosis { checks, right, off, instruction_sets, threads, gpu, caches, variables, .. } = &diagnosis;
    assert_eq!((status, *off, *right), (0, 0, checks.len()), "{text}");
    assert!(stderr.contains(&format!("{right} checks right, 0 off, ")), "{stderr}");

    let found: BTreeSet<[String; 4]> = checks
        .iter()
        .map(|CheckResult { what, pass, dtype, on, .. }| [on, what, pass, dtype].map(String::clone))
        .collect();
    let all = Isa::all_available().flat_map(expected);
    assert_eq!(found, all.collect());
    assert_eq!(found.len(), checks.len());
    for check in checks {
        let error = check.error.unwrap();
        assert!(check.passed && check.problem.is_none() && error <= check.tolerance, "{check:?}");
        // Rounding is seen, and is not what the bounds are for.
        assert!(check.tolerance < 0.1 && !check.stage.is_empty(), "{check:?}");
        assert!(check.dtype == "f64" || error > 1e-9, "{check:?}");
    }

    let names: Vec<&str> = instruction_sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["portable", "avx2", "avx512", "avx512bf16", "neon"]);
    for set in instruction_sets {
        let isa = Isa::all().find(|isa| isa.name() == set.name).unwrap();
        assert_eq!(set.found, Isa::all_available().any(|other| other == isa), "{set:?}");
    }
    assert_eq!((threads.used, threads.why.as_str()), (1, "RAYON_NUM_THREADS"));
    assert_eq!(diagnosis.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(diagnosis.features.contains(&"cuda".to_owned()), cfg!(feature = "cuda"));
    assert_eq!(gpu.built_in, cfg!(feature = "cuda"));
    assert!(gpu.usable || gpu.why.is_some(), "{gpu:?}");

    // Nothing secret, and nothing written.
    assert!(!text.contains("verysecret") && !stderr.contains("verysecret"), "{text}");
    let shown: Vec<_> = variables.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("HF_ENDPOINT", "http://***@hub.example/mirror?***"),
            ("HF_TOKEN", "set"),
            ("HF_TOKEN_PATH", "/home/me/token"),
            ("HF_HUB_OFFLINE", "1"),
            ("NAT_INFER_MIRROR", "https://***@store.example"),
            ("RAYON_NUM_THREADS", "1"),
            ("HTTPS_PROXY", "***@proxy.example:3128"),
        ]
    );
    assert_eq!(place.files(), Vec::<String>::new());
    let [hub, own] = caches.as_slice() else { panic!("{caches:?}") };
    let home = place.path("home").display().to_string();
    assert_eq!(hub.path.as_deref(), Some(format!("{home}/.cache/huggingface/hub").as_str()));
    assert_eq!(own.path.as_deref(), Some(format!("{home}/.cache/nat-infer").as_str()));
    assert!([hub, own].iter().all(|folder| !folder.exists && folder.writable), "{caches:?}");
}

#[test]
fn people_get_text_without_secrets() {
    let place = place();
    let mut command = place.command(&["doctor", "--device", "cpu", "-q", "--threads", "2"]);
    let done = Done(command.envs(SECRETS).env("NAT_INFER_ISA", "portable").output().unwrap());
    assert_eq!(done.stderr(), "");
    let text = done.success();
    assert!(!text.contains("verysecret"), "{text}");
    for line in [
        &format!("nat-infer      {} for ", env!("CARGO_PKG_VERSION")),
        "instructions   portable    used: NAT_INFER_ISA asks for it\n",
        "threads        2: --threads\n",
        "HF_ENDPOINT=http://***@hub.example/mirror?***\n",
        "HF_TOKEN=set\n",
        // The others are checked all the same.
        &format!("{:11} f64   2 of 2 right; at most ", Isa::available().last().unwrap().name()),
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert!(!text.contains("\nOFF"), "{text}");
}

#[test]
fn what_is_asked_for_and_is_not_there_is_refused() {
    let place = place();
    let mut command = place.command(&["doctor"]);
    let done = Done(command.env("NAT_INFER_ISA", "avx1024").output().unwrap());
    assert_eq!((done.status(), done.stdout().as_str()), (2, ""));
    let possible = Isa::all_available().map(Isa::name).collect::<Vec<_>>().join(", ");
    let says = format!("nat-infer: NAT_INFER_ISA=avx1024: possible on this processor are {possible}\n");
    assert_eq!(done.stderr(), says);
    assert_eq!(place.run(&["doctor", "--device", "gpu"]).status(), 2);
    assert_eq!(place.run(&["doctor", "a.png"]).status(), 2);
}

/// Without CUDA in the program there is nothing that this machine could answer with.
#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_that_can_not_be_used_is_an_error_after_everything_else() {
    let done = place().run(&["doctor", "--device", "cuda:1", "--json"]);
    let diagnosis: Diagnosis = serde_json::from_str(&done.stdout()).unwrap();
    assert!(diagnosis.off == 0 && diagnosis.right > 0);
    assert!(!diagnosis.gpu.built_in && !diagnosis.gpu.usable);
    assert_eq!(diagnosis.gpu.why.as_deref(), Some("CUDA was not built into this program"));
    let stderr = done.stderr();
    assert!(
        stderr
            .ends_with("nat-infer: GPU 1: CUDA was not built into this program; --device cpu does without\n"),
        "{stderr}"
    );
    assert_eq!(done.status(), 2);
}

/// The process that checks an instruction set is ended, as one would be by an instruction that the processor lacks.
#[cfg(target_os = "linux")]
#[test]
fn an_instruction_set_that_crashes_is_off_and_the_others_are_not() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let place = place();
    let mut command = place.command(&["doctor", "--device", "cpu", "--json"]);
    let doctor = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", doctor.id());
    let begin = Instant::now();
    let child = loop {
        let children = std::fs::read_to_string(&children).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            break child.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no process that checks");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(Command::new("kill").args(["-ILL", &child]).status().unwrap().success());
    let done = Done(doctor.wait_with_output().unwrap());
    assert_eq!(done.status(), 1);
    let diagnosis: Diagnosis = serde_json::from_str(&done.stdout()).unwrap();
    let off: Vec<&CheckResult> = diagnosis.checks.iter().filter(|check| !check.passed).collect();
    assert_eq!((off.len(), diagnosis.off), (1, 1), "{off:?}");
    assert_eq!([&off[0].what, &off[0].on], ["process", "portable"]);
    let problem = "it was ended by signal 4 (an instruction that this processor lacks)";
    assert_eq!(off[0].problem.as_deref(), Some(problem));
    assert!(done.stderr().contains(" right, 1 off, "), "{}", done.stderr());
    // Of the others nothing is missing.
    for isa in &Isa::available()[1..] {
        let own = diagnosis.checks.iter().filter(|check| check.on == isa.name() && check.passed);
        assert!(own.count() > 10, "{isa:?}");
    }
}
