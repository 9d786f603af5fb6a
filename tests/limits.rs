//! What the system refuses is an error like any other, not the end of the program.

#![cfg(unix)]

use std::fs;
use std::process::Command;

#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let command = r#"ulimit -f 1 && exec "$0" features "$1" --model demo-digits --save "$2""#;
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/nine.png");
    let done = Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_nat-infer"), image])
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
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/nine.png");
    let done =
        Command::new("sh").args(["-c", command, env!("CARGO_BIN_EXE_nat-infer"), image]).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(
        stderr.contains("an input of 8192x8192 takes ") && stderr.contains(" MiB at least, and "),
        "{stderr}"
    );
}
