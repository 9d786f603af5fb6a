//! The modules of a workspace, and which file imports what of which.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::{Token, attribute, group_end, is, item_end, item_start, tokens, without_tests};

/// Gives the text of a file by its path from the workspace's root, if there is one.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a crate begins: the name by which others import it (none of a program), and its first file.
pub type Root<'a> = (Option<&'a str>, &'a str);

/// A file uses what another defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub line: usize,
    pub to: String,
    /// As it is written.
    pub path: String,
}

/// All that was read.
#[derive(Default)]
pub struct Workspace {
    /// The files that are compiled into a program or library, tests left out.
    pub files: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// `file:line: what`, of that which can't be followed or hides where names come from.
    pub problems: Vec<String>,
    /// Where types and traits are defined, `file:line` by their names.
    pub types: BTreeMap<String, Vec<String>>,
}

#[derive(Default)]
struct Module {
    parent: Option<usize>,
    root: usize,
    file: String,
    /// The folder of its children's files.
    folder: String,
    children: BTreeMap<String, usize>,
    uses: Vec<Path>,
    defined: BTreeSet<String>,
    /// Paths that stand in code, not in `use`.
    inline: Vec<Path>,
    /// Names in code: which re-exports the module uses itself.
    words: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Path {
    segments: Vec<String>,
    /// The name that it gets here; `*` of a glob.
    name: String,
    /// `pub use`, and `use` of what is public in a part of the crate.
    exported: bool,
    line: usize,
}

impl Path {
    fn written(&self) -> String {
        self.segments.join("::") + if self.name == "*" { "::*" } else { "" }
    }
}

/// What a path leads to.
enum Target {
    Module(usize),
    /// Something defined in this module.
    Item(usize),
    /// Another crate's, or the language's.
    Foreign,
    Unknown,
}

/// Deeper than any chain of re-exports: a longer one goes in circles.
const MOST_REEXPORTS: usize = 32;

/// Reads the crates from their roots on.
pub fn read(roots: &[Root], files: Files) -> Workspace {
    let mut tree =
        Tree { files, modules: Vec::new(), crates: BTreeMap::new(), workspace: Workspace::default() };
    for (name, file) in roots {
        let index = tree.modules.len();
        if let Some(name) = name {
            tree.crates.insert((*name).to_owned(), index);
        }
        let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
        let file = (*file).to_owned();
        tree.modules.push(Module { root: index, file: file.clone(), folder, ..Module::default() });
        tree.file(index, &file);
    }
    tree.imports();
    let mut workspace = tree.workspace;
    workspace.imports.sort();
    workspace
}

struct Tree<'a> {
    files: Files<'a>,
    modules: Vec<Module>,
    crates: BTreeMap<String, usize>,
    workspace: Workspace,
}

impl Tree<'_> {
    fn file(&mut self, module: usize, file: &str) {
        let Some(source) = (self.files)(file) else {
            self.workspace.problems.push(format!("{file}: there is no such file"));
            return;
        };
        self.workspace.files.insert(file.to_owned());
        let tokens = without_tests(&tokens(&source));
        self.items(module, &tokens);
    }

    /// The items of a module.
    fn items(&mut self, module: usize, tokens: &[Token]) {
        let mut at = 0;
        while at < tokens.len() {
            let start = item_start(tokens, at);
            let end = item_end(tokens, at).max(at + 1);
            let exported = tokens[at..start.min(tokens.len())].iter().any(|token| token.text == "pub");
            let name = tokens.get(start + 1).filter(|token| token.is_name());
            match tokens.get(start).map_or("", |token| token.text.as_str()) {
                "use" => self.modules[module].uses.extend(uses(&tokens[start..end], exported)),
                "mod" if name.is_some() => self.module(module, &tokens[at..end], start - at),
                _ => {
                    // A macro may define whatever it is told.
                    if is(tokens, start + 1, "!") {
                        let told = tokens[start + 2..end].iter().filter(|token| token.is_name());
                        self.modules[module].defined.extend(told.map(|token| token.text.clone()));
                    }
                    self.define(module, tokens, start);
                    self.code(module, &tokens[at..end]);
                }
            }
            at = end;
        }
    }

    /// `mod name;` or `mod name { .. }`, whose keyword is the token `start`.
    fn module(&mut self, parent: usize, tokens: &[Token], start: usize) {
        let (name, line) = (tokens[start + 1].text.clone(), tokens[start].line);
        let Module { root, file, folder, .. } = &self.modules[parent];
        let below = format!("{folder}/{name}");
        let mut module = Module { parent: Some(parent), root: *root, folder: below, ..Module::default() };
        let index = self.modules.len();
        if is(tokens, start + 2, "{") {
            module.file.clone_from(file);
            self.modules.push(module);
            let body = start + 3..tokens.len().saturating_sub(1);
            self.items(index, &tokens[body]);
        } else {
            if tokens[..start].windows(2).any(|pair| pair[0].text == "path" && pair[1].text == "=") {
                self.workspace
                    .problems
                    .push(format!("{file}:{line}: `#[path]`: put the file where `mod` looks"));
            }
            let beside = format!("{}.rs", module.folder);
            let within = format!("{}/mod.rs", module.folder);
            let path = if (self.files)(&within).is_some() { within } else { beside };
            module.file.clone_from(&path);
            self.modules.push(module);
            self.file(index, &path);
        }
        self.modules[parent].children.insert(name, index);
    }

    /// What an item defines in its module.
    fn define(&mut self, module: usize, tokens: &[Token], start: usize) {
        let mut at = start;
        while ["unsafe", "async", "extern", "const", "static"].iter().any(|word| is(tokens, at, word))
            && tokens.get(at + 1).is_some_and(|next| {
                ["unsafe", "async", "extern", "fn", "trait", "mut"].contains(&next.text.as_str())
            })
        {
            at += 1;
        }
        let Some(keyword) = tokens.get(at).map(|token| token.text.clone()) else { return };
        let named = if keyword == "macro_rules" { at + 2 } else { at + 1 };
        let Some(name) = tokens.get(named).filter(|token| token.is_name()) else { return };
        let is_type = ["struct", "enum", "union", "trait", "type"].contains(&keyword.as_str());
        if is_type || ["fn", "const", "static", "mut", "macro_rules"].contains(&keyword.as_str()) {
            self.modules[module].defined.insert(name.text.clone());
        }
        if is_type {
            let place = format!("{}:{}", self.modules[module].file, name.line);
            self.workspace.types.entry(name.text.clone()).or_default().push(place);
        }
    }

    /// The paths and the `use` in the code of an item.
    fn code(&mut self, module: usize, tokens: &[Token]) {
        let mut at = 0;
        while at < tokens.len() {
            let after_path = at > 0 && ["::", "."].contains(&tokens[at - 1].text.as_str());
            if let Some(end) = attribute(tokens, at) {
                at = end;
            } else if tokens[at].text == "use" {
                let end = item_end(tokens, at);
                self.modules[module].uses.extend(uses(&tokens[at..end], false));
                at = end;
            } else if tokens[at].is_name() && !after_path {
                let mut segments = vec![tokens[at].text.clone()];
                let line = tokens[at].line;
                while is(tokens, at + 1, "::") && tokens.get(at + 2).is_some_and(Token::is_name) {
                    segments.push(tokens[at + 2].text.clone());
                    at += 2;
                }
                self.modules[module].words.insert(segments[0].clone());
                if segments.len() > 1 {
                    let path = Path { segments, name: String::new(), exported: false, line };
                    self.modules[module].inline.push(path);
                }
                at += 1;
            } else {
                at += 1;
            }
        }
    }

    /// Follows every path.
    fn imports(&mut self) {
        let mut imports = BTreeSet::new();
        for (index, module) in self.modules.iter().enumerate() {
            for path in module.uses.iter().chain(&module.inline) {
                let of_this_workspace = ["crate", "super", "self"].contains(&path.segments[0].as_str());
                if path.name == "*" && of_this_workspace && self.is_module(index, path) {
                    let Path { line, .. } = path;
                    self.workspace.problems.push(format!(
                        "{}:{line}: `use {}` hides where names come from: name them",
                        module.file,
                        path.written()
                    ));
                }
                // What a facade passes on, it doesn't use.
                if path.exported && !module.words.contains(&path.name) {
                    continue;
                }
                match self.follow(index, &path.segments, None, 0) {
                    Target::Module(to) | Target::Item(to) => {
                        let to = self.modules[to].file.clone();
                        if to != module.file {
                            let (from, line) = (module.file.clone(), path.line);
                            imports.insert(Import { from, line, to, path: path.written() });
                        }
                    }
                    Target::Unknown if of_this_workspace => self.workspace.problems.push(format!(
                        "{}:{}: can't find what `{}` names: teach tests/rooms to follow it",
                        module.file,
                        path.line,
                        path.written()
                    )),
                    Target::Foreign | Target::Unknown => {}
                }
            }
        }
        self.workspace.imports = imports.into_iter().collect();
    }

    fn is_module(&self, from: usize, path: &Path) -> bool {
        matches!(self.follow(from, &path.segments, None, 0), Target::Module(_))
    }

    /// What a path names that stands in the module `from`. `within` is the module whose name comes first, where the path
    /// goes on from one.
    fn follow(&self, from: usize, segments: &[String], within: Option<usize>, depth: usize) -> Target {
        if depth > MOST_REEXPORTS {
            return Target::Unknown;
        }
        let Some((first, rest)) = segments.split_first() else {
            return within.map_or(Target::Unknown, Target::Module);
        };
        let module = within.unwrap_or(from);
        let root = self.modules[module].root;
        match first.as_str() {
            "crate" if within.is_none() => return self.follow(from, rest, Some(root), depth),
            "self" if within.is_none() || rest.is_empty() => {
                return self.follow(from, rest, Some(module), depth);
            }
            "super" => {
                let parent = self.modules[module].parent;
                return parent.map_or(Target::Unknown, |parent| self.follow(from, rest, Some(parent), depth));
            }
            _ => {}
        }
        if let Some(&child) = self.modules[module].children.get(first) {
            return self.follow(from, rest, Some(child), depth);
        }
        if self.modules[module].defined.contains(first) {
            return Target::Item(module);
        }
        let named = |path: &&Path| path.name == *first;
        // A path that begins with its own name is another crate's: `use half::{self, bf16}`.
        let itself = |path: &&Path| path.segments.first() != Some(first);
        if let Some(path) = self.modules[module].uses.iter().filter(named).find(itself) {
            return match self.follow(module, &path.segments, None, depth + 1) {
                Target::Module(target) => self.follow(from, rest, Some(target), depth),
                target => target,
            };
        }
        // Not one whose own path would need another: two of them would go on for ever.
        let leads = |glob: &&Path| {
            let start = &glob.segments[0];
            glob.name == "*"
                && (["crate", "super", "self"].contains(&start.as_str())
                    || self.modules[module].children.contains_key(start))
        };
        for glob in self.modules[module].uses.iter().filter(leads) {
            if let Target::Module(target) = self.follow(module, &glob.segments, None, depth + 1) {
                match self.follow(from, segments, Some(target), depth + 1) {
                    Target::Unknown => {}
                    found => return found,
                }
            }
        }
        match self.crates.get(first) {
            Some(&other) if within.is_none() && other != root => self.follow(from, rest, Some(other), depth),
            _ if within.is_none() => Target::Foreign,
            // A name that another crate gives to this module.
            _ if self.modules[module].uses.iter().any(|path| named(&path)) => Target::Foreign,
            _ => Target::Unknown,
        }
    }
}

/// The paths of `use a::{b, c as d};`.
fn uses(tokens: &[Token], exported: bool) -> Vec<Path> {
    let mut paths = Vec::new();
    let end = tokens.len() - usize::from(is(tokens, tokens.len() - 1, ";"));
    branches(&tokens[1..end], &[], exported, &mut paths);
    paths
}

fn branches(tokens: &[Token], before: &[String], exported: bool, paths: &mut Vec<Path>) {
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].line;
        let mut segments = before.to_vec();
        let mut name = None;
        while at < tokens.len() && tokens[at].text != "," {
            match tokens[at].text.as_str() {
                "{" => {
                    let end = group_end(tokens, at);
                    branches(&tokens[at + 1..end - 1], &segments, exported, paths);
                    segments.clear();
                    at = end;
                }
                "as" => {
                    name = tokens.get(at + 1).map(|token| token.text.clone());
                    at += 2;
                }
                "*" => {
                    name = Some("*".to_owned());
                    at += 1;
                }
                // `a::{self}` is `a`.
                "self" if !segments.is_empty() => at += 1,
                "::" => at += 1,
                word => {
                    segments.push(word.to_owned());
                    at += 1;
                }
            }
        }
        at += 1;
        if let Some(last) = segments.last() {
            let name = name.unwrap_or_else(|| last.clone());
            paths.push(Path { segments, name, exported, line });
        }
    }
}
