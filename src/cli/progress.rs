//! How far a run is, on stderr: a bar on a terminal, and one line at the end.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::say;
use super::verbosity::Verbosity;

/// The progress of a run over images.
pub struct Progress {
    bar: ProgressBar,
    quiet: bool,
    begun: Instant,
    total: usize,
    /// Images that an earlier run finished.
    before: usize,
    done: usize,
    failed: usize,
    /// Steps of the bar that an image takes.
    steps: usize,
}

impl Progress {
    /// Begins a run over `total` images, of which `before` were done by an earlier one; each takes `steps` steps.
    pub fn new(total: usize, before: usize, steps: usize, verbosity: Verbosity) -> Self {
        let bar =
            if verbosity.quiet { ProgressBar::hidden() } else { ProgressBar::new((total * steps) as u64) };
        // What stands behind the bar fits on 60 columns.
        let style = ProgressStyle::with_template("{wide_bar} {msg}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position((before * steps) as u64);
        bar.reset_eta();
        // The time that is left goes on while an image takes long.
        bar.enable_steady_tick(Duration::from_millis(500));
        let begun = Instant::now();
        let progress = Self { bar, quiet: verbosity.quiet, begun, total, before, done: 0, failed: 0, steps };
        progress.show();
        progress
    }

    /// What moves the bar within an image.
    pub fn stepper(&self) -> impl FnMut(usize) + Send + 'static {
        let bar = self.bar.clone();
        move |steps| bar.inc(steps as u64)
    }

    /// An image is done.
    pub fn done(&mut self) {
        self.done += 1;
        self.show();
    }

    /// An image failed, and this is why.
    pub fn failed(&mut self, why: &str) {
        self.failed += 1;
        self.suspend(|| say(why));
        self.show();
    }

    /// How many images were tried.
    pub fn tried(&self) -> usize {
        self.done + self.failed
    }

    /// Whether any image failed.
    pub fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Whether no image was done.
    pub fn is_empty(&self) -> bool {
        self.done == 0
    }

    /// Writes elsewhere on the terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    fn show(&self) {
        let passed = self.before + self.done + self.failed;
        self.bar.set_position((passed * self.steps) as u64);
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        self.bar.set_message(format!(
            "{passed}/{}{failed}, {} images/s",
            self.total,
            rate(self.done, self.begun)
        ));
    }

    /// Ends the bar with a line that says what was done, and `place`, where it is. A single image that was not done has
    /// had its line already.
    pub fn finish(self, early: bool, place: &[String]) {
        self.bar.finish_and_clear();
        let Self { quiet, begun, total, before, done, failed, .. } = self;
        if quiet || (total == 1 && done == 0 && place.is_empty()) {
            return;
        }
        let images = if done + before == 1 { "image" } else { "images" };
        let mut line = match early {
            true => format!("ended early: {} of {total} images done", done + before),
            false => format!("{} {images} done", done + before),
        };
        if before > 0 {
            line += &format!(" ({before} before)");
        }
        if failed > 0 {
            line += &format!(", {failed} failed");
        }
        line += &format!(", {} images/s, {}", rate(done, begun), time(begun.elapsed()));
        for place in place {
            line += &format!("; {place}");
        }
        say(&line);
    }
}

/// Images per second, with two digits that count.
fn rate(done: usize, since: Instant) -> String {
    let rate = done as f64 / since.elapsed().as_secs_f64().max(1e-9);
    match rate {
        100.0.. => format!("{rate:.0}"),
        10.0.. => format!("{rate:.1}"),
        _ => format!("{rate:.2}"),
    }
}

/// A time as people say it.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{seconds:.2} s"),
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, text) in [
            (0.0, "0.00 s"),
            (9.994, "9.99 s"),
            (59.4, "59.4 s"),
            (59.7, "1 min 0 s"),
            (148.2, "2 min 28 s"),
            (3725.0, "1 h 2 min"),
        ] {
            assert_eq!(time(Duration::from_secs_f64(seconds)), text);
        }
    }
}
