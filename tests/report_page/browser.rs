//! What a Chromium makes of the pages.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::RgbImage;
use nat_infer::eval::page::{Confusion, Page};

use crate::between;
use crate::made_up::{
    classify, confusion, detect, gallery, hostile_gallery, hostile_page, images, knn, label, panoptic,
    segment,
};

/// A Chromium in a folder of its own.
struct Browser {
    program: PathBuf,
    folder: tempfile::TempDir,
}

/// Whether it is more than a stand-in that says how to install one.
fn runs(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output
        .is_ok_and(|output| output.status.success() && output.stdout.windows(5).any(|text| text == b"Chrom"))
}

/// What it says of a page.
struct Seen {
    /// The elements as they are after the script ran.
    dom: String,
    /// Messages of the page: errors, what the policy forbade.
    console: Vec<String>,
}

impl Browser {
    /// `None`, and a line that says so, where none is installed.
    fn new() -> Option<Self> {
        let folders: Vec<PathBuf> =
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let programs = ["chromium", "chromium-browser", "google-chrome"];
        let there = |name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let program = programs.into_iter().filter_map(there).find(|program| runs(program));
        if program.is_none() {
            eprintln!("no Chromium is installed: what it would draw is not checked");
        }
        Some(Self { program: program?, folder: tempfile::tempdir().unwrap() })
    }

    fn run(&self, html: &str, fragment: &str, arguments: &[&str]) -> std::process::Output {
        let file = self.folder.path().join("page.html");
        fs::write(&file, html).unwrap();
        let home = self.folder.path().join("home");
        let output = Command::new(&self.program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-dev-shm-usage",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"])
            .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000"])
            .arg(format!("--user-data-dir={}", home.display()))
            .args(arguments)
            .arg(format!("file://{}{fragment}", file.display()))
            .env("HOME", &home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// The page after its script ran.
    fn see(&self, html: &str, fragment: &str) -> Seen {
        let output = self.run(html, fragment, &["--dump-dom"]);
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        let console = messages.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        Seen { dom: String::from_utf8(output.stdout).unwrap(), console }
    }

    /// A picture of the page.
    fn draw(&self, html: &str, fragment: &str, [width, height]: [u32; 2], dark: bool) -> RgbImage {
        let file = self.folder.path().join("page.png");
        let screenshot = format!("--screenshot={}", file.display());
        let size = format!("--window-size={width},{height}");
        // Chromium counts dark as 0.
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
        self.run(html, fragment, &[&screenshot, &size, &scheme]);
        let image = image::open(&file).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (width, height));
        image
    }
}

/// The first cells of a table's body: those of a column.
fn column<'a>(dom: &'a str, id: &str, begin: &str) -> Vec<&'a str> {
    let body = between(dom, &format!("id=\"{id}\">"), "</tbody>");
    body.split("<tr>").skip(1).map(|row| between(row, begin, "<")).collect()
}

#[test]
fn a_browser_draws_classes_by_parts_in_the_order_of_the_address() {
    let Some(browser) = Browser::new() else { return };
    let (evaluation, confusion, images) = (classify(1000), confusion(1000), images(30));
    let html = Page { evaluation: &evaluation, confusion: Some(&confusion), images: &images }.html();
    let Seen { dom, console } = browser.see(&html, "");
    assert!(console.is_empty(), "{console:?}");
    let scores = column(&dom, "classes-rows", "<td class=\"number\">");
    assert_eq!(scores.len(), 50);
    assert!(dom.contains("50 of 1,000 classes."), "status");
    assert!(between(&dom, "id=\"images-list\"", "</ol>").matches("<li").count() == 24);
    assert!(dom.contains("<canvas"));
    assert_eq!(column(&dom, "pairs-rows", "<td class=\"number\">").len(), 20);
    let pairs: Vec<u64> =
        column(&dom, "pairs-rows", "<td class=\"number\">").iter().map(|c| c.parse().unwrap()).collect();
    assert!(pairs.is_sorted_by(|a, b| a >= b) && pairs[0] > 2, "{pairs:?}");

    // By count, the largest first; then those of a name.
    let Seen { dom, console } = browser
        .see(&html, "#classes-sort=index-down&classes-find=grey+fox&images-order=best&images-right=wrong");
    assert!(console.is_empty(), "{console:?}");
    assert_eq!(
        column(&dom, "classes-rows", "<td class=\"number\">"),
        ["900", "800", "700", "600", "500", "400", "300", "200", "100"]
    );
    let shown = between(&dom, "id=\"images-list\"", "</ol>");
    let wrong = images.iter().filter(|image| image.right == Some(false)).map(|image| image.score);
    let mut wrong: Vec<String> = wrong.map(|score| format!("{score:.3}")).collect();
    wrong.sort();
    wrong.reverse();
    let seen: Vec<&str> = shown.split("<dt>Score</dt><dd>").skip(1).map(|rest| &rest[..5]).collect();
    assert_eq!(seen, wrong);
}

/// The page with a script behind its own that does what a reader would. The policy, which forbids it, is left out.
fn driven(html: &str, actions: &str) -> String {
    let policy = between(html, "<meta http-equiv", "\n");
    let html = html.replace(&format!("<meta http-equiv{policy}\n"), "");
    html.replace("</body>", &format!("<script>\n{{{actions}}}\n</script></body>"))
}

#[test]
fn a_browser_does_what_a_reader_asks_for() {
    let Some(browser) = Browser::new() else { return };
    let (evaluation, few, many) = (classify(1000), confusion(10), confusion(1000));
    let html = |confusion| Page { evaluation: &evaluation, confusion: Some(confusion), images: &[] }.html();
    let see = |confusion, actions: &str| {
        let Seen { dom, console } = browser.see(&driven(&html(confusion), actions), "");
        assert!(console.is_empty(), "{console:?}");
        dom
    };
    let reading = |dom: &str| {
        let text = between(dom, "id=\"confusion-reading\"", "</p>").split_once('>').unwrap().1;
        text.replace(['\u{2068}', '\u{2069}'], "")
    };

    let dom = see(&few, "document.getElementById('classes-more').click();");
    assert_eq!(column(&dom, "classes-rows", "<td class=\"number\">").len(), 100);

    // A press on a title sorts, another one the other way, and the address says so.
    let press = "const press = (what) => document.querySelector(`#classes-head [data-sort=${what}]`).click();
        const note = () => document.body.dataset.addresses = (document.body.dataset.addresses ?? '') + location.hash;";
    let dom = see(
        &few,
        &format!("{press} press('index'); note(); press('index'); note(); press('score'); note();"),
    );
    assert!(dom.contains("data-addresses=\"#classes-sort=index-up#classes-sort=index-down\""));
    let dom = see(&few, &format!("{press} press('count');"));
    assert!(dom.contains("aria-sort=\"descending\"><button type=\"button\" data-sort=\"count\""));
    let most = evaluation.classes.iter().map(|class| class.count).max().unwrap();
    let counts = between(&dom, "id=\"classes-rows\">", "</tr>");
    assert!(counts.contains(&format!("</th><td class=\"number\">{most}</td>")), "{counts}");

    // Another score; a class that has none comes last.
    let dom = see(
        &few,
        "const select = document.getElementById('classes-score');
         select.value = '1'; select.dispatchEvent(new Event('change'));
         const find = document.getElementById('classes-find');
         find.value = 'NORTHERN SPANIEL 0'; find.dispatchEvent(new Event('input'));",
    );
    assert!(dom.contains("<bdi id=\"classes-shown\">top5</bdi>"));
    assert!(
        between(&dom, "id=\"classes-rows\">", "</tbody>")
            .contains("<td class=\"number\">–</td><td class=\"bar\"></td>")
    );

    // The matrix by keys and by the pointer.
    let keys = "const map = document.getElementById('confusion-map');
        const key = (key) => map.dispatchEvent(new KeyboardEvent('keydown', { key, cancelable: true }));";
    let count = |confusion: &Confusion, place| {
        let of =
            |(truth, answer, count): &(usize, usize, u64)| ((*truth, *answer) == place).then_some(*count);
        confusion.counts.iter().find_map(of).unwrap_or(0)
    };
    let dom = see(&few, &format!("{keys} key('ArrowDown'); key('ArrowRight');"));
    let said = reading(&dom);
    let expected = format!("True owl, answered owl: {} images, ", count(&few, (1, 1)));
    assert!(said.starts_with(&expected), "{said}");
    let dom = see(&few, &format!("{keys} for (let i = 0; i < 20; i++) key('ArrowRight');"));
    assert!(reading(&dom).starts_with("True fox, answered no answer: 0 images"), "{}", reading(&dom));
    let dom = see(
        &many,
        &format!(
            "{keys} const canvas = map.querySelector('canvas'); const box = canvas.getBoundingClientRect();
             canvas.dispatchEvent(new PointerEvent('pointermove', {{ clientX: box.left + 1, clientY: box.top + 1 }}));"
        ),
    );
    // Three classes a cell: the most frequent of its pairs.
    let said = reading(&dom);
    let best = (0..3).max_by_key(|&class| count(&many, (class, class))).unwrap();
    let expected = format!("True {0}, answered {0}: {1} images", label(best), count(&many, (best, best)));
    assert!(said.starts_with(&expected), "{said}");
}

#[test]
fn a_browser_draws_every_kind_of_report() {
    let Some(browser) = Browser::new() else { return };
    let pictures = images(6);
    for evaluation in [classify(10), segment(), panoptic(), detect(), knn()] {
        let labels = evaluation.classes.len();
        let confusion = (labels <= 10).then(|| confusion(labels));
        let html = Page { evaluation: &evaluation, confusion: confusion.as_ref(), images: &pictures }.html();
        let Seen { dom, console } = browser.see(&html, "");
        assert!(console.is_empty(), "{}: {console:?}", evaluation.task);
        assert_eq!(
            column(&dom, "classes-rows", "<td class=\"number\">").len(),
            labels.min(50),
            "{}",
            evaluation.task
        );
        assert_eq!(dom.matches("<img ").count(), 6, "{}", evaluation.task);
        if let Some(confusion) = &confusion {
            let matrix = between(&dom, "<table class=\"matrix", "</table>");
            assert_eq!(matrix.matches("<td title=").count(), labels * (labels + 1));
            let (truth, _, count) =
                confusion.counts.iter().find(|(truth, answer, _)| (*truth, *answer) == (3, 10)).unwrap();
            let said = format!("True \u{2068}{}\u{2069}, answered no answer: {count} images", label(*truth));
            assert!(matrix.contains(&said), "{said}");
        }
        for dark in [false, true] {
            let image = browser.draw(&html, "", [900, 700], dark);
            let mut colours: Vec<[u8; 3]> = image.pixels().map(|pixel| pixel.0).collect();
            let background = colours[0];
            assert_eq!(background[0] < 128, dark, "{background:?}");
            colours.sort_unstable();
            colours.dedup();
            assert!(colours.len() > 16, "{} colours", colours.len());
        }
    }
}

#[test]
fn a_browser_fetches_nothing_and_runs_nothing_of_a_name() {
    let Some(browser) = Browser::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/pixel.png", listener.local_addr().unwrap());
    for html in [hostile_page(&address), hostile_gallery(&address)] {
        let Seen { dom, console } = browser.see(&html, "#classes-find=onerror&images-find=script");
        assert!(console.is_empty(), "{console:?}");
        // The names are there as text.
        assert!(dom.matches("&lt;/script&gt;&lt;/title&gt;").count() > 4);
        assert!(!dom.contains("<img src=\"x\""));
        // What would be fetched if it stood in the page is not: the policy holds, and the browser says so.
        let html = html.replace(
            "</body>",
            &format!("<img src=\"{address}\"><script>document.title = 'run'</script></body>"),
        );
        let Seen { dom, console } = browser.see(&html, "");
        for kind in ["img-src", "script-src"] {
            let said = |line: &String| line.contains("Content Security Policy") && line.contains(kind);
            assert!(console.iter().any(said), "{kind}: {console:?}");
        }
        assert!(!dom.contains("<title>run</title>"));
    }
    let asked = listener.accept();
    assert!(
        asked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "something was fetched"
    );
}

#[test]
fn a_browser_draws_a_gallery() {
    let Some(browser) = Browser::new() else { return };
    let html = gallery().html();
    let Seen { dom, console } = browser.see(&html, "");
    assert!(console.is_empty(), "{console:?}");
    assert!(dom.contains("class=\"with-script\""));
    let image = browser.draw(&html, "", [1000, 800], false);
    // A picture's disc.
    assert!(image.pixels().filter(|pixel| pixel.0[0] > 200 && pixel.0[2] < 90).count() > 1000);
}
