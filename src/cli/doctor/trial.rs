//! The self-test of each place, in a process of its own: an instruction set is chosen when a process starts, and what
//! crashes there is a check that failed and not the end of the program.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nat_infer::results::CheckResult;
use nat_infer::self_test;
use nat_infer::simd::{ISA_VARIABLE, Isa};

use crate::cli::exit::{Exit, OrFailed, print};
use crate::cli::settings::open_gpu;
use crate::cli::shared::DeviceName;

/// Where is computed.
#[derive(Clone, Copy)]
pub enum Place {
    Cpu(Isa),
    /// The GPU of this number.
    Gpu(usize),
}

/// A process that says nothing for so long hangs: a check takes a fraction of a second, on an emulated GPU a few.
const SILENCE: Duration = Duration::from_secs(60);

/// The line after the last check.
const END: &str = "done";

/// The checks of a place, each given to `report` as it is done.
pub fn of(place: Place, threads: Option<usize>, report: &mut dyn FnMut(CheckResult)) {
    let on = match place {
        Place::Cpu(isa) => isa.name(),
        Place::Gpu(_) => "cuda",
    };
    if let Err(problem) = watched(command(place, threads), report) {
        report(CheckResult {
            what: "process".to_owned(),
            pass: String::new(),
            dtype: String::new(),
            on: on.to_owned(),
            stage: String::new(),
            error: None,
            tolerance: 0.0,
            passed: false,
            problem: Some(problem),
        });
    }
}

/// This program, to run the checks of a place.
fn command(place: Place, threads: Option<usize>) -> io::Result<Command> {
    // On Linux the program that runs, even if its file was replaced since.
    let this: OsString = match cfg!(target_os = "linux") && std::path::Path::new("/proc/self/exe").exists() {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe()
            .map_or_else(|_| std::env::args_os().next().unwrap_or_default(), Into::into),
    };
    let mut command = Command::new(this);
    command.args(["doctor", "--checks-of"]);
    match place {
        Place::Cpu(isa) => command.arg("cpu").env(ISA_VARIABLE, isa.name()),
        Place::Gpu(number) => command.arg(format!("cuda:{number}")),
    };
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// Runs a process of checks and gives each to `report`. What ends it early is the error.
fn watched(command: io::Result<Command>, report: &mut dyn FnMut(CheckResult)) -> Result<(), String> {
    let started = command.and_then(|mut command| command.spawn());
    let mut child = started.map_err(|error| format!("this program can't start itself again: {error}"))?;
    let heard = heard(&mut child, report);
    if heard.is_err() {
        // It may have ended by itself.
        child.kill().ok();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match heard {
        Ok(true) if status.success() => Ok(()),
        Ok(_) => Err(ended(status)),
        Err(problem) => Err(problem),
    }
}

/// Listens to a process until its output ends: whether it came to its end.
fn heard(child: &mut Child, report: &mut dyn FnMut(CheckResult)) -> Result<bool, String> {
    let Some(output) = child.stdout.take() else { return Err("it has no output".to_owned()) };
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut done = false;
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(Ok(line)) if line == END => done = true,
            Ok(Ok(line)) => match serde_json::from_str(&line) {
                Ok(check) => report(check),
                Err(_) => return Err(format!("it said `{line}`")),
            },
            Ok(Err(error)) => return Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("it hangs: no check was done in {} s", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(done),
        }
    }
}

/// How a process ended that should not have.
fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let meaning = match signal {
            libc::SIGILL => " (an instruction that this processor lacks)",
            libc::SIGSEGV | libc::SIGBUS => " (memory that is not its own)",
            libc::SIGFPE => " (a division by zero)",
            libc::SIGKILL => " (killed, as the system does when memory is short)",
            libc::SIGABRT => " (given up)",
            _ => "",
        };
        return format!("it was ended by signal {signal}{meaning}");
    }
    match status.code() {
        Some(code) => format!("it ended early with status {code}"),
        None => "it ended early".to_owned(),
    }
}

/// Runs the checks of a device here, a line each: what [`of`] listens to.
///
/// # Errors
/// When the device can't be opened, or nobody listens.
pub fn checks(device: DeviceName) -> Result<Exit> {
    let mut written = Ok(());
    let mut write = |check| {
        if written.is_ok() {
            written = line(check);
        }
    };
    match device {
        DeviceName::Cuda(number) => {
            self_test::checks(&open_gpu(number).map_err(|none| none.refused(number))?, &mut write);
        }
        // Of one whose products alone are other ones, the rest is checked by the process of the one that it is made of.
        DeviceName::Auto | DeviceName::Cpu => self_test::checks_with(Isa::from_env()?, &mut write),
    }
    written?;
    print(format!("{END}\n"))?;
    Ok(Exit::Success)
}

fn line(check: self_test::Check) -> Result<()> {
    let passed = check.passed();
    let self_test::Check { what, pass, dtype, on, stage, error, tolerance, problem, .. } = check;
    let result = CheckResult {
        what: what.to_owned(),
        pass: pass.to_string(),
        dtype: dtype.as_str().to_owned(),
        on: on.to_owned(),
        stage,
        error: error.is_finite().then_some(error),
        tolerance,
        passed,
        problem,
    };
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", serde_json::to_string(&result)?).and_then(|()| out.flush());
    written.context("nobody listens").or_failed()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What is made of a process that prints `script`'s output and ends as that does.
    fn made(script: &str) -> (usize, Result<(), String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut checks = 0;
        let ended = watched(Ok(command), &mut |_| checks += 1);
        (checks, ended)
    }

    #[test]
    fn a_process_that_ends_early_is_said() {
        let check = r#"{"what":"nat","pass":"forward","dtype":"f32","on":"avx2","stage":"logits","error":1e-7,"tolerance":1e-6,"passed":true}"#;
        let echo = format!("echo '{check}'");
        assert_eq!(made(&format!("{echo}; {echo}; echo done")), (2, Ok(())));
        for (script, checks, says) in [
            (
                format!("{echo}; kill -ILL $$"),
                1,
                "it was ended by signal 4 (an instruction that this processor lacks)",
            ),
            (format!("{echo}; kill -SEGV $$"), 1, "it was ended by signal 11 (memory that is not its own)"),
            (format!("{echo}; exit 3"), 1, "it ended early with status 3"),
            (format!("{echo}; exit 0"), 1, "it ended early with status 0"),
            (format!("{echo}; echo done; exit 1"), 1, "it ended early with status 1"),
            ("echo hello".to_owned(), 0, "it said `hello`"),
        ] {
            assert_eq!(made(&script), (checks, Err(says.to_owned())), "{script}");
        }
        let missing = watched(Ok(Command::new("/no/such/program")), &mut |_| ()).unwrap_err();
        assert!(missing.starts_with("this program can't start itself again: "), "{missing}");
    }
}
