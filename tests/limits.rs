//! What the system refuses is an error like any other, not the end of the program.

#![cfg(unix)]

use std::fs;
use std::process::Command;

#[cfg(target_os = "linux")]
use nat_testing::golden;
use nat_testing::place::DIGIT;

#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let command = r#"ulimit -f 1 && exec "$0" features "$1" --model demo-digits --save "$2""#;
    let done = Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_nat-infer"), DIGIT])
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    // Without a status it was a signal.
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("can't be written") && stderr.contains("too large"), "{stderr}");
    assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn an_input_that_has_no_room_is_one_line_with_the_numbers() {
    let command = r#"ulimit -v 2500000 && exec "$0" classify "$1" --model demo-digits --resolution 8192"#;
    let done =
        Command::new("sh").args(["-c", command, env!("CARGO_BIN_EXE_nat-infer"), DIGIT]).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(
        stderr.contains("an input of 8192x8192 takes ") && stderr.contains(" MiB at least, and "),
        "{stderr}"
    );
}

/// Explicitly padded, the first level's maps would take 52 GB. Their 24x24 pixels see none of their neighbours from a
/// dilation of 24 on, at which the padded maps, of 168x168, gave these scores.
#[cfg(target_os = "linux")]
#[test]
fn a_dilation_far_beyond_the_map_costs_what_the_map_costs() {
    let root = golden::path("").display().to_string();
    let command = r#"ulimit -v 4000000 && exec "$0" classify "$1/images/camera.png" \
        --weights "$1/classify/nat-padded.pth" --dilations "$2" --resolution 96 --threads 2 \
        --format json --top-k 3"#;
    for dilations in ["24/1/1/1", "4096/1/1/1"] {
        let done = Command::new("sh")
            .args(["-c", command, env!("CARGO_BIN_EXE_nat-infer"), &root, dilations])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{dilations}: {stderr}");
        let records: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        for (i, (index, score)) in [(5, 0.44534224), (1, 0.13516843), (4, 0.1229187)].into_iter().enumerate()
        {
            let top = &records[0]["top"][i];
            assert_eq!(top["index"], index, "{dilations}: {records}");
            let off = (top["score"].as_f64().unwrap() - score).abs();
            assert!(off < 1e-5, "{dilations}: {records} is off by {off:e}");
        }
    }
}
