//! The rules against sources that were made up to break them.

use crate::graph::{cycles, upward};
use crate::modules::{Root, Workspace, read};
use crate::text::{drawn, exists, namesakes, paths, too_long};
use crate::tokens::{tokens, without_tests};

const CRATES: [Root; 3] =
    [(Some("house"), "src/lib.rs"), (None, "src/main.rs"), (Some("garden"), "garden/src/lib.rs")];

/// Reads sources that are written as `== path`, each before its text.
fn house(text: &str) -> Workspace {
    let files: Vec<(&str, &str)> =
        text.split("== ").skip(1).filter_map(|file| file.split_once('\n')).collect();
    let find = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let roots: Vec<Root> = CRATES.into_iter().filter(|(_, root)| find(root).is_some()).collect();
    read(&roots, &find)
}

/// `from:line -> to` of all imports.
fn imports(text: &str) -> Vec<String> {
    let house = house(text);
    assert_eq!(house.problems, Vec::<String>::new());
    house.imports.iter().map(|import| format!("{}:{} -> {}", import.from, import.line, import.to)).collect()
}

#[test]
fn imports_lead_to_where_things_are_defined() {
    for (text, wanted) in [
        // A facade passes on and imports nothing.
        (
            "== src/lib.rs\nmod a;\npub mod room;\n\
             == src/a.rs\nuse crate::room::Door;\n\
             == src/room/mod.rs\npub mod door;\npub use door::Door;\n\
             == src/room/door.rs\npub struct Door;\n",
            &["src/a.rs:1 -> src/room/door.rs"][..],
        ),
        // One that uses what it passes on does.
        (
            "== src/lib.rs\npub mod room;\n\
             == src/room/mod.rs\nmod door;\npub use self::door::Door;\npub fn open(door: Door) {}\n\
             == src/room/door.rs\npub struct Door;\n",
            &["src/room/mod.rs:2 -> src/room/door.rs"],
        ),
        // Paths in code, through a module that was imported, through another name, through two facades.
        (
            "== src/lib.rs\nmod a;\nmod b;\npub use b::c as d;\n\
             == src/a.rs\nuse super::b::{self, e};\n\nfn f() {\n    b::c::g();\n    crate::d::g();\n    e();\n}\n\
             == src/b.rs\npub mod c;\npub use self::c::e;\n\
             == src/b/c.rs\npub fn g() {}\npub fn e() {}\n",
            &[
                "src/a.rs:1 -> src/b.rs",
                "src/a.rs:1 -> src/b/c.rs",
                "src/a.rs:4 -> src/b/c.rs",
                "src/a.rs:5 -> src/b/c.rs",
            ],
        ),
        // Modules within a file, `super` out of them, and `use` within a function.
        (
            "== src/lib.rs\nmod a;\nmod b;\n\
             == src/a.rs\nmod inner {\n    fn f() {\n        use super::super::b::g;\n        g()\n    }\n}\n\
             == src/b.rs\npub fn g() {}\n",
            &["src/a.rs:3 -> src/b.rs"],
        ),
        // Another crate of the workspace, from a program too.
        (
            "== garden/src/lib.rs\npub mod tree;\n\
             == garden/src/tree.rs\npub struct Tree;\n\
             == src/lib.rs\nmod a;\n\
             == src/a.rs\nuse garden::tree::Tree;\nuse std::fs;\n\
             == src/main.rs\nfn main() {\n    garden::tree::Tree;\n}\n",
            &["src/a.rs:1 -> garden/src/tree.rs", "src/main.rs:2 -> garden/src/tree.rs"],
        ),
        // A glob among re-exports, a macro that defines.
        (
            "== src/lib.rs\nmod a;\nmod b;\n\
             == src/a.rs\nuse crate::b::{X, Y};\n\
             == src/b.rs\nmod c;\nmod d;\npub use self::c::*;\nmake! { X, \"x\" }\n\
             == src/b/c.rs\npub const Y: u8 = 1;\n\
             == src/b/d.rs\n",
            &["src/a.rs:1 -> src/b.rs", "src/a.rs:1 -> src/b/c.rs"],
        ),
        // Not from tests, comments and texts.
        (
            "== src/lib.rs\nmod a;\nmod b;\n\
             == src/a.rs\n// use crate::b::g;\n/* use /* crate */ crate::b::g; */\n\
             const T: &str = \"use crate::b::g;\\\" crate::b::g\";\nconst R: &str = r#\"\" crate::b::g\"#;\n\
             const C: [char; 2] = ['\"', '\\''];\nfn f<'a>(x: &'a u8) {}\n\
             #[cfg(test)]\nmod tests {\n    use crate::b::g;\n}\n#[cfg(test)]\nuse crate::b::{g, h};\n\
             #[cfg(all(test, unix))]\nfn t() -> [u8; 2] {\n    crate::b::g()\n}\n\
             == src/b.rs\npub fn g() {}\n",
            &[],
        ),
    ] {
        // Globs are told as problems, and followed.
        let text_without_globs = text.replace("pub use self::c::*;", "pub use self::c::Y;");
        assert_eq!(imports(&text_without_globs), wanted, "{text}");
        let followed: Vec<String> =
            house(text).imports.iter().map(|i| format!("{}:{} -> {}", i.from, i.line, i.to)).collect();
        assert_eq!(followed, wanted, "{text}");
    }
}

#[test]
fn what_cannot_be_followed_is_told() {
    for (text, wanted) in [
        ("== src/lib.rs\nmod a;\n", "src/a.rs: there is no such file"),
        (
            "== src/lib.rs\nfn f() {\n    crate::nowhere::g();\n}\n",
            "src/lib.rs:2: can't find what `crate::nowhere::g`",
        ),
        ("== src/lib.rs\n#[path = \"b.rs\"]\nmod a;\n== src/a.rs\n", "src/lib.rs:2: `#[path]`"),
        (
            "== src/lib.rs\nmod a;\n== src/a.rs\nuse super::*;\n",
            "src/a.rs:1: `use super::*` hides where names come from",
        ),
    ] {
        let problems = house(text).problems;
        assert!(problems.len() == 1 && problems[0].starts_with(wanted), "{text}: {problems:?}");
    }
    // An enum's variants are where the enum is.
    assert!(house("== src/lib.rs\nenum E { A }\nuse self::E::*;\n").problems.is_empty());
}

#[test]
fn cycles_are_told_each_once() {
    let pair = "== src/lib.rs\nmod a;\nmod b;\n\
                == src/a.rs\nuse crate::b::B;\npub struct A;\n\
                == src/b.rs\npub struct B;\nfn f(a: crate::a::A) {}\n";
    let told = cycles(&house(pair).imports);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with(
            "src/a.rs and src/b.rs import each other:\n    src/a.rs:1 uses `crate::b::B` of src/b.rs\n    \
             src/b.rs:2 uses `crate::a::A` of src/a.rs\n"
        ),
        "{told:?}"
    );
    // A child that uses what its parent defines, while the parent uses the child.
    let parent = "== src/lib.rs\nmod a;\n\
                  == src/a/mod.rs\nmod b;\npub struct A;\nfn f() {\n    b::g()\n}\n\
                  == src/a/b.rs\nuse super::A;\npub fn g() {}\n";
    assert_eq!(cycles(&house(parent).imports).len(), 1);
    let facade = parent.replace("fn f() {\n    b::g()\n}\n", "pub use b::g;\n");
    assert!(cycles(&house(&facade).imports).is_empty());
    // Three in a circle beside two that import each other.
    let circle = "== src/lib.rs\nmod a;\nmod b;\nmod c;\n\
                  == src/a.rs\nuse crate::b::B;\npub struct A;\n\
                  == src/b.rs\nuse crate::c::C;\npub struct B;\n\
                  == src/c.rs\nuse crate::a::A;\nuse crate::b::B;\npub struct C;\n";
    let told = cycles(&house(circle).imports);
    assert_eq!(told.len(), 1, "one cut opens both: {told:?}");
    assert!(told[0].starts_with("src/b.rs and src/c.rs import each other"), "{told:?}");
    let circle = circle.replace("use crate::b::B;\npub struct C;", "pub struct C;");
    let told = cycles(&house(&circle).imports);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("3 files import each other in a circle"), "{told:?}");
}

#[test]
fn rooms_look_down_alone() {
    let rooms = ["src/low/", "src/low/attic.rs", "src/high.rs", "src/lib.rs"];
    let told = |low: &str, high: &str| {
        let files = "== src/lib.rs\nmod low;\nmod high;\n\
                     == src/low/mod.rs\npub mod cellar;\npub mod attic;\n== src/low/attic.rs\npub struct Attic;\n";
        let text = format!(
            "{files}== src/low/cellar.rs\npub struct Cellar;\n{low}\n== src/high.rs\npub struct High;\n{high}\n"
        );
        let house = house(&text);
        upward(&rooms, &house.files, &house.imports)
    };
    assert_eq!(told("", "use crate::low::cellar::Cellar;"), Vec::<String>::new());
    let messages = told("use crate::high::High;", "");
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].starts_with(
            "src/low/cellar.rs:2 uses `crate::high::High` of src/high.rs: src/high.rs is above src/low/"
        ),
        "{messages:?}"
    );
    // The longest name says where a file belongs.
    assert_eq!(told("use super::attic::Attic;", "").len(), 1);
    let none: [String; 0] = [];
    assert_eq!(upward(&rooms, &none, &[]).len(), rooms.len(), "rooms without files");
    assert!(upward(&[], &["src/x.rs".to_owned()], &[])[0].starts_with("src/x.rs is in no room"));
}

#[test]
fn names_of_types_are_counted_outside_functions_impls_and_tests() {
    let house = house(
        "== src/lib.rs\nmod a;\npub(crate) struct One;\nenum Two {}\nfn f() {\n    struct One;\n}\n\
         #[cfg(test)]\nmod tests {\n    struct One;\n}\nimpl Iterator for Two {\n    type Item = u8;\n}\n\
         == src/a.rs\npub unsafe trait Two {\n    type Item;\n}\ntype Item = u8;\n",
    );
    assert_eq!(namesakes(&house.types), ["Two stands for 2 things: src/a.rs:1, src/lib.rs:3"]);
}

#[test]
fn tests_are_left_out_and_nothing_else() {
    let left = |source: &str| -> Vec<String> {
        without_tests(&tokens(source)).into_iter().map(|token| token.text).collect()
    };
    let names = |source: &str| {
        left(source).into_iter().filter(|text| text.len() > 1 || text == "x").collect::<Vec<_>>()
    };
    assert_eq!(names("#[cfg(test)] mod tests { fn a() {} } fn x() {}"), ["fn", "x"]);
    assert_eq!(names("#[cfg(test)] #[allow(dead_code)] const A: [u8; 1] = [1]; fn x() {}"), ["fn", "x"]);
    assert_eq!(names("#[cfg(test)] pub(crate) const fn a<const N: usize>() {} fn x() {}"), ["fn", "x"]);
    assert_eq!(names("#[test] fn a() { b() } fn x() {}"), ["fn", "x"]);
    assert_eq!(names("struct x { #[cfg(test)] ab: u8, cd: u8 }"), ["struct", "x", "cd", "u8"]);
    assert_eq!(names("#[cfg(not(test))] fn x() {}"), ["cfg", "not", "test", "fn", "x"]);
    assert_eq!(names("#![allow(unused)] fn x() {}"), ["allow", "unused", "fn", "x"]);
}

#[test]
fn long_files_say_why() {
    let long = "fn f() {}\n".repeat(601);
    assert!(too_long("a.rs", &long).is_some_and(|message| message.starts_with("a.rs has 601 lines")));
    assert!(too_long("a.rs", &long[10..]).is_none());
    assert!(
        too_long("a.rs", &format!("//! All of it, long\n//! because a table is one thing.\n{long}"))
            .is_none()
    );
}

#[test]
fn documents_are_read() {
    let document = "See `src/a.rs`, `README.md`, `.cargo/config.toml` and `src/*/mod.rs`; not `--save` or `a b/c`,\n\
                    `user/repo@main` or `https://x/y`.\n```\nhigh/  `no/path`\n  low.rs\n```\nThen `b/`.\n";
    let found =
        [(1, "src/a.rs"), (1, "README.md"), (1, ".cargo/config.toml"), (1, "src/*/mod.rs"), (7, "b/")];
    assert_eq!(paths(document), found);
    assert_eq!(drawn(document, &["low.rs", "high/", "other"]), ["high/", "low.rs"]);
    let list = |folder: &str| -> Vec<String> {
        let names: &[&str] = match folder {
            "" => &["src", "b"],
            "src" => &["a.rs", "c"],
            "src/c" => &["mod.rs"],
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    for (path, there) in [
        ("src/a.rs", true),
        ("src/*/mod.rs", true),
        ("src/*.rs", true),
        ("b/", true),
        ("src/b.rs", false),
        ("a.rs", false),
        ("src/*.toml", false),
    ] {
        assert_eq!(exists(path, &list), there, "{path}");
    }
}
