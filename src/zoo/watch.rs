//! How a download is shown to whoever waits for it.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use nat_convert::terminal::one_line;

use super::cache::Env;

/// Smaller files are there before a line about them is read.
const WORTH_A_LINE: u64 = 1_000_000;

/// Who looks on while files are fetched. `()` does not look.
pub trait Watch {
    /// A file begins to arrive from `url`: `name` is the last part of that, `size` its bytes where the
    /// server says them. Once a file, however often the connection is lost.
    fn begin(&mut self, name: &str, size: Option<u64>, url: &str) {
        let _ = (name, size, url);
    }

    /// So many more bytes of it are there; those of an earlier run come first, at once.
    fn advance(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// No more of it will arrive: it is whole, or the attempt failed.
    fn finish(&mut self) {}

    /// Whether the download is to end here; what has arrived is kept, and the next one goes on there.
    fn stops(&self) -> bool {
        false
    }

    /// Another process fetches `name`; this one waits until that is done.
    fn waiting(&mut self, name: &str) {
        let _ = name;
    }
}

impl Watch for () {}

/// What the program shows on stderr: on a terminal a bar for each file, gone when the file is there;
/// elsewhere one line when a file begins. Nothing when `HF_HUB_DISABLE_PROGRESS_BARS` or the caller
/// asks for quiet.
pub struct Bars {
    bar: ProgressBar,
    style: BarStyle,
}

enum BarStyle {
    Quiet,
    Bar,
    Lines(Box<dyn Write + Send>),
}

impl Bars {
    /// Bars or lines on stderr, as fits it; nothing if `quiet` or `env` says so.
    pub fn new(env: &Env, quiet: bool) -> Self {
        let style = match () {
            () if quiet || env.hides_progress() => BarStyle::Quiet,
            () if io::stderr().is_terminal() => BarStyle::Bar,
            () => BarStyle::Lines(Box::new(io::stderr())),
        };
        Self { bar: ProgressBar::hidden(), style }
    }

    /// Lines into `out`.
    pub fn lines(out: impl Write + Send + 'static) -> Self {
        Self { bar: ProgressBar::hidden(), style: BarStyle::Lines(Box::new(out)) }
    }
}

impl Watch for Bars {
    fn begin(&mut self, name: &str, size: Option<u64>, url: &str) {
        match &mut self.style {
            BarStyle::Quiet => {}
            BarStyle::Bar => {
                let template = match size {
                    Some(_) => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {eta} left",
                    None => "{msg} {spinner} {decimal_bytes}",
                };
                let style = ProgressStyle::with_template(template);
                self.bar = match size {
                    Some(size) => ProgressBar::new(size),
                    None => ProgressBar::new_spinner(),
                };
                self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                self.bar.set_message(one_line(name));
            }
            BarStyle::Lines(out) => {
                let size = match size {
                    Some(size) if size < WORTH_A_LINE => return,
                    Some(size) => format!(" ({})", megabytes(size)),
                    None => String::new(),
                };
                say(out, &format!("fetching {name}{size} from {url}"));
            }
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    fn waiting(&mut self, name: &str) {
        let line = format!("waiting for another process that fetches {name}");
        match &mut self.style {
            BarStyle::Quiet => {}
            BarStyle::Bar => say(&mut io::stderr(), &line),
            BarStyle::Lines(out) => say(out, &line),
        }
    }
}

fn say(out: &mut dyn Write, line: &str) {
    // Whoever read it may be gone; the download goes on.
    writeln!(out, "nat-infer: {}", one_line(line)).and_then(|()| out.flush()).ok();
}

/// A size in decimal units, as files are listed.
fn megabytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_says_what_is_fetched_and_from_where() {
        let sink = Sink::default();
        let mut bars = Bars::lines(sink.clone());
        let mut fetch = |name, size| {
            bars.begin(name, size, "https://x.example/a");
            bars.advance(1);
            bars.finish();
        };
        fetch("a.pth", Some(111_900_000));
        fetch("config.json", Some(999));
        fetch("b.pth", Some(1_250_000_000));
        fetch("c\u{1b}[31m.pth", None);
        bars.waiting("a.pth");
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "nat-infer: fetching a.pth (112 MB) from https://x.example/a",
                "nat-infer: fetching b.pth (1.2 GB) from https://x.example/a",
                "nat-infer: fetching c?[31m.pth from https://x.example/a",
                "nat-infer: waiting for another process that fetches a.pth",
            ]
        );
    }

    #[test]
    fn quiet_is_quiet() {
        let env = Env::from_vars::<String, String>([]);
        assert!(matches!(Bars::new(&env, true).style, BarStyle::Quiet));
        let env = Env::from_vars([("HF_HUB_DISABLE_PROGRESS_BARS", "1")]);
        assert!(matches!(Bars::new(&env, false).style, BarStyle::Quiet));
    }
}
