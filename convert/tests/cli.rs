//! What a user of `nat-convert` meets: files, messages, exit statuses.

use std::fs;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use nat_convert::zoo;
use nat_testing::checkpoint::{save as safetensors, zeros};
use nat_testing::golden;
use nat_testing::place::names;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

fn nat_convert() -> Command {
    assert_cmd::cargo::cargo_bin_cmd!("nat-convert")
}

/// One line on stderr that begins with the program's name and says this.
fn one_line(says: &str) -> impl Predicate<str> + use<> {
    let one = predicate::function(|text: &str| text.ends_with('\n') && text.matches('\n').count() == 1);
    starts_with("nat-convert: ").and(contains(says.to_owned())).and(one)
}

/// Some line has these words, whatever the spaces between them.
fn line(words: &'static str) -> impl Predicate<str> {
    let same = |line: &str| line.split_whitespace().eq(words.split(' '));
    predicate::function(move |text: &str| text.lines().any(same))
}

#[test]
fn converts_into_the_current_folder_and_says_what_it_found() {
    let folder = TempDir::new().unwrap();
    nat_convert()
        .current_dir(&folder)
        .arg(golden::path("classify/nat-k5-layerscale-ema.pth"))
        .assert()
        .success()
        .stdout(is_empty())
        .stderr(
            contains("nat-k5-layerscale-ema.pth: PyTorch legacy, original (SHI-Labs) names")
                .and(contains("state_dict_ema (also there: state_dict)"))
                .and(contains("embed 16, depths 2,1,1,2, heads 1,2,4,8, kernel 5, MLP ratio 2, layer scale"))
                .and(contains("109 kept (414322 parameters), 0 dropped"))
                .and(contains("wrote nat-k5-layerscale-ema.safetensors")),
        );
    assert_eq!(names(folder.path()), ["nat-k5-layerscale-ema.safetensors"]);
    // A folder's name makes the default name too, and -q is silent.
    nat_convert()
        .current_dir(&folder)
        .arg(golden::path("transformers/nat-hf"))
        .arg("-q")
        .assert()
        .success()
        .stderr(is_empty());
    assert_eq!(names(folder.path()), ["nat-hf.safetensors", "nat-k5-layerscale-ema.safetensors"]);
}

#[test]
fn inspects_without_writing() {
    let folder = TempDir::new().unwrap();
    let inspect = |format: &str| {
        let mut command = nat_convert();
        command.current_dir(&folder).arg(golden::path("segment/upernet_b/model.pth"));
        command.args(["--inspect", "--format", format]).assert().success().stderr(is_empty())
    };
    inspect("text").stdout(
        contains("DiNAT with UPerNet, 32 channels, 21 classes")
            .and(contains("auxiliary head, for training only (8)"))
            .and(contains("4/1,3/1,2/2 (from the training configuration in the file)"))
            .and(line("decode_head.bottleneck.conv.weight F32 [32, 256, 3, 3]"))
            .and(line("auxiliary_head.conv_seg.bias dropped: auxiliary head, for training only")),
    );
    let json = inspect("json").get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for (key, expected) in [
        ("/file", serde_json::json!("model.pth")),
        ("/container", serde_json::json!("torch_zip")),
        ("/layout", serde_json::json!("openmmlab")),
        ("/weights_key", serde_json::json!("state_dict")),
        ("/task", serde_json::json!("segment")),
        ("/architecture/head/network", serde_json::json!("upernet")),
        ("/architecture/backbone/dilations", serde_json::json!([[4], [1, 3], [1, 2], [2]])),
        ("/preprocessing/scale", serde_json::json!([800, 201])),
        ("/labels/0", serde_json::json!("wall")),
        ("/tensors/0/name", serde_json::json!("backbone.patch_embed.proj.0.weight")),
        ("/tensors/0/shape", serde_json::json!([8, 3, 3, 3])),
        ("/tensors/0/dtype", serde_json::json!("F32")),
        ("/dropped/0/reason", serde_json::json!("BatchNorm's counter")),
    ] {
        assert_eq!(report.pointer(key), Some(&expected), "{key}");
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn options_reach_the_result() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.safetensors");
    nat_convert()
        .arg(golden::path("detect/maskrcnn_s/model.pth"))
        .args(["--dtype", "bf16", "--part", "backbone", "--dilations", "2/1/1,3/1", "-o"])
        .arg(&out)
        .assert()
        .success();
    nat_convert().arg(&out).arg("--inspect").assert().success().stdout(
        contains("safetensors, converted (nat-convert) names")
            .and(contains("task       features"))
            .and(contains("DiNAT_s backbone"))
            .and(contains("2/1/1,3/1"))
            .and(line("norm3.bias BF16 [128]")),
    );
}

#[test]
fn an_existing_target_is_replaced_only_on_demand() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.safetensors");
    fs::write(&out, "precious").unwrap();
    let run = |extra: &[&str]| {
        let mut command = nat_convert();
        command.arg(golden::path("classify/nat-k7.pth")).arg("-o").arg(&out).args(extra).assert()
    };
    run(&[]).code(1).stdout(is_empty()).stderr(one_line("out.safetensors exists; --overwrite replaces it"));
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    run(&["--overwrite"]).success();
    assert!(fs::metadata(&out).unwrap().len() > 1_000_000);
    assert_eq!(names(folder.path()), ["out.safetensors"]);
    // The checkpoint itself is never the target.
    let mut same = nat_convert();
    let same = same.arg(&out).arg("-o").arg(&out).arg("--overwrite").assert();
    same.code(1).stderr(one_line("is the checkpoint itself; -o names the file to write"));
}

#[test]
fn bad_input_is_one_clear_line_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let input = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let zip = fs::read(golden::path("classify/nat-k7.pth")).unwrap();
    let legacy = fs::read(golden::path("classify/dinat-s.pth")).unwrap();
    let foreign = folder.path().join("resnet.safetensors");
    safetensors(&foreign, &[("layer1.0.conv1.weight".into(), "F32", vec![4], Vec::new())]);
    let cases = [
        (input("half.zip.pth", &zip[..zip.len() / 2]), "half.zip.pth: "),
        (input("half.legacy.pth", &legacy[..legacy.len() / 2]), "half.legacy.pth: "),
        (input("photo.pth", b"\xff\xd8\xff\xe0 not a checkpoint"), "photo.pth: not a checkpoint but "),
        (input("empty.pth", b""), "empty.pth: not a checkpoint but "),
        (folder.path().join("missing.pth"), "missing.pth: "),
        (foreign, "resnet.safetensors: not a NAT or DiNAT checkpoint: looks like a ResNet"),
        (folder.path().to_owned(), "a folder without model.safetensors or pytorch_model.bin"),
    ];
    let outputs = TempDir::new().unwrap();
    for (path, says) in cases {
        let mut command = nat_convert();
        let assert = command.current_dir(&outputs).arg(&path).assert();
        assert.code(1).stdout(is_empty()).stderr(one_line(says));
    }
    assert_eq!(names(outputs.path()), [""; 0]);
}

/// Whatever a file is called and holds, a terminal shows it and does not obey.
#[cfg(unix)]
#[test]
fn nothing_reaches_a_terminal_that_moves_it() {
    let folder = TempDir::new().unwrap();
    let network = &zoo::find("demo-digits").unwrap().architecture;
    let mut tensors = zeros(network.tensors());
    tensors.push((
        "num_batches_tracked\u{1b}]0;owned\u{7}.num_batches_tracked".into(),
        "I64",
        vec![],
        Vec::new(),
    ));
    let hostile = "red\u{1b}[31m\u{9b}2J\u{202e}x";
    let checkpoint = folder.path().join(format!("{hostile}.pth"));
    safetensors(&checkpoint, &tensors);
    let run = |arguments: &[&str]| {
        let mut command = nat_convert();
        let output = command.current_dir(&folder).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        let harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.concat().contains(harmful), "{arguments:?}: {text:?}");
        (output.status.code(), text)
    };
    let name = checkpoint.to_str().unwrap();
    let (status, [_, report]) = run(&[name]);
    assert_eq!(status, Some(0), "{report}");
    for line in ["red?[31m?2J?x.pth: safetensors", "wrote red?[31m?2J?x.safetensors"] {
        assert!(report.contains(line), "{report}");
    }
    assert!(folder.path().join(format!("{hostile}.safetensors")).is_file());
    let (status, [_, error]) = run(&[name]);
    assert_eq!((status, error.contains("x.safetensors exists; --overwrite replaces it")), (Some(1), true));
    let (_, [table, _]) = run(&[name, "--inspect"]);
    assert!(table.contains("num_batches_tracked?]0;owned?.num_batches_tracked"), "{table}");
    let (_, [json, _]) = run(&[name, "--inspect", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["file"], format!("{hostile}.pth"));
    // What clap repeats of the arguments, too.
    for arguments in [[name, hostile], ["--arch", hostile], [name, &format!("--{hostile}")]] {
        let (status, [_, error]) = run(&arguments);
        assert_eq!((status, error.contains("error: ")), (Some(2), true), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_are_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let checkpoint = golden::path("classify/nat-k7.pth");
    let run = |arguments: &[&str]| {
        let mut command = nat_convert();
        command.current_dir(&folder).args(arguments).write_stdin("bytes").assert().stdout(is_empty())
    };
    run(&[checkpoint.to_str().unwrap(), "-o", "-"]).code(2).stderr(one_line("-o -: the result is read back"));
    run(&["-"]).code(2).stderr(one_line("-: a checkpoint can't be read from a pipe; save it to a file"));
    run(&["/dev/stdin", "-o", "x.safetensors"]).code(1).stderr(one_line(
        "/dev/stdin: a checkpoint can't be read from a pipe or a device; save it to a file",
    ));
    // Nobody writes to this one: it is not waited for.
    let fifo = folder.path().join("fifo");
    assert!(Program::new("mkfifo").arg(&fifo).status().unwrap().success());
    run(&["fifo"]).code(1).stderr(one_line("fifo: a checkpoint can't be read from a pipe"));
    assert_eq!(names(folder.path()), ["fifo"]);
}

#[test]
fn advice_names_options() {
    let folder = TempDir::new().unwrap();
    let big = folder.path().join("big.safetensors");
    let mut tensors = zeros(zoo::find("demo-digits").unwrap().architecture.tensors());
    tensors[0].3 = 1e6f32.to_le_bytes().repeat(tensors[0].2.iter().product());
    safetensors(&big, &tensors);
    nat_convert()
        .current_dir(&folder)
        .args(["big.safetensors", "-q", "-o", "half.safetensors", "--dtype", "f16"])
        .assert()
        .code(1)
        .stderr(one_line("has values beyond the range of f16; use --dtype bf16 or f32"));
    nat_convert()
        .arg(golden::path("classify/nat-k5-layerscale-ema.pth"))
        .args(["--inspect", "--weights-key", "nope"])
        .assert()
        .code(1)
        .stderr(one_line(
            "no weights under `nope`, only under `state_dict`, `state_dict_ema`; --weights-key takes one of them",
        ));
}

#[test]
fn tensors_are_left_out_and_warnings_say_what_helps() {
    let folder = TempDir::new().unwrap();
    let run = |file: &str, more: &[&str]| {
        let mut command = nat_convert();
        command
            .current_dir(&folder)
            .arg(golden::path("doors").join(file))
            .args(["--inspect"])
            .args(more)
            .assert()
    };
    run("read/timm_ema.pth", &[]).success().stderr(is_empty()).stdout(
        contains("`state_dict_ema` is taken; there are other weights under `state_dict`; --weights-key takes the other\n")
            .and(contains("taken as 1, as NAT's are; --arch or --dilations states them if it is a DiNAT\n")),
    );
    run("plain.pth", &["--ignore", "head.*", "--ignore", "x?"]).success().stdout(
        contains("19 kept")
            .and(contains("left out as asked (2)"))
            .and(line("task features"))
            .and(contains("warning    no tensor is called like `x?` to leave out\n")),
    );
    let mut tensors = zeros(zoo::find("demo-digits").unwrap().architecture.tensors());
    tensors.push(("heatmap.weight".to_owned(), "F32", vec![1], Vec::new()));
    safetensors(&folder.path().join("more.safetensors"), &tensors);
    nat_convert()
        .current_dir(&folder)
        .args(["more.safetensors", "--inspect"])
        .assert()
        .code(1)
        .stderr(one_line("1 unknown: `heatmap.weight` (nearest: `head.weight`); --ignore leaves out what is no part of the network"));
    let json = run("read/timm_ema.pth", &["--format", "json", "--weights-key", "state_dict"]);
    let report: serde_json::Value = serde_json::from_slice(&json.success().get_output().stdout).unwrap();
    assert_eq!(report["weights_key"], "state_dict");
    assert_eq!(
        report["warnings"],
        serde_json::json!(["dilations are not in the file and taken as 1, as NAT's are"])
    );
}

#[test]
fn wrong_arch() {
    let folder = TempDir::new().unwrap();
    let mut mismatch = nat_convert();
    let mismatch =
        mismatch.current_dir(&folder).arg(golden::path("classify/nat-k7.pth")).args(["--arch", "nat-tiny"]);
    mismatch.assert().code(1).stderr(one_line(
        "nat-k7.pth: not `nat-tiny` but a NAT or DiNAT classifier of 10 classes: embed 16, depths 1,2,2,1",
    ));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn wrong_usage_is_2_and_help_has_an_example() {
    let checkpoint = golden::path("classify/nat-k7.pth");
    for (args, says) in [
        (&["--arch", "nat-tinny"][..], "the nearest names are nat-tiny"),
        (&["--dtype", "f8"], "invalid value 'f8'"),
        (&["--dilations", "1,x"], "`x` in dilations `1,x` is not a number"),
        (&["--format", "json"], "--inspect"),
        (&["--inspect", "-o", "x"], "cannot be used with"),
        (&["another"], "unexpected argument 'another'"),
    ] {
        nat_convert().arg(&checkpoint).args(args).assert().code(2).stdout(is_empty()).stderr(contains(says));
    }
    nat_convert().assert().code(2);
    nat_convert().arg("--help").assert().success().stdout(contains("Examples:\n  nat-convert nat_tiny.pth"));
    nat_convert().arg("--version").assert().success().stdout(starts_with("nat-convert "));
}

#[test]
fn targets_that_cannot_be_written() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let run = |target: &str| {
        let mut command = nat_convert();
        command
            .current_dir(&folder)
            .arg(golden::path("classify/nat-k7.pth"))
            .args(["--overwrite", "-o", target])
            .assert()
    };
    run("missing/out.safetensors").code(1).stderr(one_line("missing: no such folder to write to"));
    run("file/out.safetensors").code(1).stderr(one_line("file/out.safetensors: can't write"));
    run("folder").code(1).stderr(one_line("folder: is a folder, not a file; -o names the file to write"));
    assert_eq!(names(folder.path()), ["file", "folder"]);
}

#[cfg(unix)]
#[test]
fn special_files_and_protected_folders_are_no_targets() {
    use std::os::unix::fs::PermissionsExt;
    nat_convert()
        .arg(golden::path("classify/nat-k7.pth"))
        .args(["--overwrite", "-o", "/dev/null"])
        .assert()
        .code(1)
        .stderr(one_line("/dev/null: is not a plain file"));
    let folder = TempDir::new().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.path().join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere");
        return;
    }
    nat_convert()
        .arg(golden::path("classify/nat-k7.pth"))
        .arg("-o")
        .arg(folder.path().join("out.safetensors"))
        .assert()
        .code(1)
        .stderr(one_line("out.safetensors: can't write here: Permission denied"));
}

/// A limit on the file's size, set by the shell, stops the writing in the middle as a full disk
/// does.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_grow_is_removed() {
    let folder = TempDir::new().unwrap();
    let script = r#"trap '' XFSZ; ulimit -f 64; exec "$0" -q "$1" -o out.safetensors"#;
    Command::new("sh")
        .current_dir(&folder)
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin!("nat-convert"))
        .arg(golden::path("classify/nat-k7.pth"))
        .assert()
        .code(1)
        .stderr(one_line("out.safetensors: can't write: File too large"));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    // 300 MB of zeros that take no space: long enough to be interrupted.
    let input = folder.path().join("big.safetensors");
    safetensors(&input, &zeros(zoo::find("cascade-mask-rcnn-nat-mini").unwrap().architecture.tensors()));
    let outputs = TempDir::new().unwrap();
    let mut child = Program::new(assert_cmd::cargo::cargo_bin!("nat-convert"))
        .current_dir(&outputs)
        .arg(&input)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while names(outputs.path()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "no temporary file appears");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Program::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(names(outputs.path()), [""; 0]);
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("nat_tiny.safetensors");
    safetensors(&input, &zeros(zoo::find("nat-tiny").unwrap().architecture.tensors()));
    let report = nat_convert().arg(&input).args(["--inspect", "--format", "json"]).output().unwrap().stdout;
    assert!(report.len() > 1 << 16, "the report would fit into the pipe");
    let script = r#""$0" "$1" --inspect --format json | head -n 1; exit ${PIPESTATUS[0]}"#;
    Command::new("bash")
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin!("nat-convert"))
        .arg(&input)
        .assert()
        .success()
        .stdout("{\n")
        .stderr(is_empty());
}
