//! Dependencies point one way: no crate depends on a crate above it, and the modules of a
//! crate form no cycles.
//!
//! The module graph is derived from the sources, without their tests. It has an edge for
//! every path that starts with `crate`, `super` or `self` and for every `use` of another
//! module, to the module that defines the item: a re-export is followed. An edge between two
//! modules counts for their ancestors that are siblings, so a module may use the items of the
//! modules above and below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Each of our crates, and those of our crates that it may depend on.
const CRATES: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("proto/grpc", &["admission-proto"]),
    ("host", &["admission-grpc", "admission-proto"]),
    ("guest-sdk", &["admission-grpc", "admission-proto"]),
    (
        "cli",
        &["admission-host", "admission-proto", "admission-sdk"],
    ),
    ("xtask", &[]),
];

#[test]
fn no_crate_depends_on_a_crate_above_it() {
    for (folder, allowed) in CRATES {
        let manifest = read(&workspace().join(folder).join("Cargo.toml"));
        let dependencies = manifest
            .split("[dev-dependencies]")
            .next()
            .expect("the part before");
        let ours = dependencies.lines().filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            name.starts_with("admission-").then_some(name)
        });
        for dependency in ours {
            assert!(
                allowed.contains(&dependency),
                "{folder} depends on {dependency}"
            );
        }
    }
}

#[test]
fn sibling_modules_form_no_cycle() {
    let mut report = String::new();
    for (folder, _) in CRATES {
        let source = workspace().join(folder).join("src");
        let root = ["lib.rs", "main.rs"].map(|name| source.join(name));
        let root = root.iter().find(|path| path.exists());
        let root = root.expect("a crate has a root file");
        let mut modules = Modules::default();
        modules.add_file(root, &source, &[]);
        let files = modules.0.values().map(|module| &module.file);
        assert!(files.collect::<BTreeSet<_>>().len() > 1 || folder == "proto/grpc");
        report += &modules.cycles(folder);
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_cycle_through_a_re_export_is_found_and_tests_are_ignored() {
    let source = "
        pub use b::{B as Renamed, c};
        mod a {
            use super::Renamed;
            #[cfg(test)]
            mod tests { use crate::d::D; }
        }
        mod b {
            pub struct B(crate::a::A);
            pub mod c { fn up() { super::B; } }
        }
        mod d { use crate::c::{self, C}; }
    ";
    let mut modules = Modules::default();
    let file = Path::new("lib.rs");
    modules.add(&source.parse().expect("Rust"), file, Path::new(""), &[]);
    let cycles = modules.cycles("x");
    let expected = "cycle in x: a, b\n    \
                    a -> b: lib.rs: super::Renamed\n    \
                    b -> a: lib.rs: crate::a::A\n";
    assert_eq!(cycles, expected);
}

/// The modules of a crate, by their paths.
#[derive(Default)]
struct Modules(BTreeMap<Vec<String>, Module>);

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// The names that `use` brings into scope, each with its path.
    imports: Vec<(String, Vec<String>)>,
    /// Every path that may lead to another module, as written.
    paths: Vec<Vec<String>>,
}

impl Modules {
    /// Adds the module `name` from its file. The files of its children are in `folder`.
    fn add_file(&mut self, file: &Path, folder: &Path, name: &[String]) {
        let tokens = read(file).parse();
        let tokens = tokens.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let file = file
            .strip_prefix(workspace())
            .expect("it is a source of ours");
        self.add(&tokens, file, folder, name);
    }

    fn add(&mut self, tokens: &TokenStream, file: &Path, folder: &Path, name: &[String]) {
        self.0.entry(name.to_vec()).or_default().file = file.to_owned();
        let tokens: Vec<_> = tokens.clone().into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at + 1..];
            at += 1;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(rest.first()) => {
                    at += 1 + end_of_item(&rest[1..]);
                }
                TokenTree::Group(group) => self.add(&group.stream(), file, folder, name),
                TokenTree::Ident(ident) if ident == "use" && !is_punct(rest.first(), '<') => {
                    let end = end_of_item_at_semicolon(rest);
                    self.import(&rest[..end], name);
                    at += end;
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    let child = rest.first().map(ToString::to_string).unwrap_or_default();
                    let folder = folder.join(&child);
                    let name = [name, &[child]].concat();
                    match rest.get(1) {
                        Some(TokenTree::Group(body)) => {
                            self.add(&body.stream(), file, &folder, &name);
                        }
                        _ => self.add_file(&folder.with_extension("rs"), &folder, &name),
                    }
                    at += 2;
                }
                TokenTree::Ident(ident)
                    if ["crate", "self", "super"].iter().any(|word| ident == word)
                        && is_punct(rest.first(), ':') =>
                {
                    let path = path(&tokens[at - 1..]);
                    at += 3 * (path.len() - 1);
                    self.module(name).paths.push(path);
                }
                _ => {}
            }
        }
    }

    /// Adds a `use` of the module `name`.
    fn import(&mut self, tree: &[TokenTree], name: &[String]) {
        let mut paths = Vec::new();
        leaves(tree, &[], &mut paths);
        let module = self.module(name);
        for (path, alias) in paths {
            module.paths.push(path.clone());
            module.imports.push((alias, path));
        }
    }

    fn module(&mut self, name: &[String]) -> &mut Module {
        self.0.get_mut(name).expect("it was added")
    }

    /// Returns the modules that may define the item of `path`, as seen from the module `from`.
    /// There are none if the item is of another crate, and several if `cfg` chooses among
    /// imports of one name.
    ///
    /// `inside` is true if `from` is the result of an earlier part of the path.
    fn resolve(
        &self,
        from: &[String],
        path: &[String],
        inside: bool,
        depth: u32,
    ) -> Vec<Vec<String>> {
        let Some((word, rest)) = path.split_first() else {
            return vec![from.to_vec()];
        };
        let child = [from, std::slice::from_ref(word)].concat();
        let next = match &**word {
            "crate" => &[],
            "self" => from,
            "super" => &from[..from.len() - 1],
            _ if self.0.contains_key(&child) => &child,
            _ => {
                let imports = self.0[from].imports.iter();
                let imports = imports.filter(|(name, _)| name == word && depth < 8);
                let found = imports.flat_map(|(_, import)| {
                    self.resolve(from, &[import, rest].concat(), false, depth + 1)
                });
                let mut found: Vec<_> = found.collect();
                if found.is_empty() && inside {
                    found.push(from.to_vec());
                }
                return found;
            }
        };
        self.resolve(next, rest, true, depth)
    }

    /// Describes each cycle of siblings with the paths that cause it.
    fn cycles(&self, krate: &str) -> String {
        // By parent: the user, the used module, and the places of use.
        let mut edges = BTreeMap::<_, BTreeMap<(&str, String), BTreeSet<String>>>::new();
        for (name, module) in &self.0 {
            for path in &module.paths {
                for used in self.resolve(name, path, false, 0) {
                    let common = name.iter().zip(&used).take_while(|(a, b)| a == b).count();
                    if let (Some(user), Some(used)) = (name.get(common), used.get(common)) {
                        let place = format!("{}: {}", module.file.display(), path.join("::"));
                        let siblings = edges.entry(&name[..common]).or_default();
                        let edge = siblings.entry((user, used.clone())).or_default();
                        edge.insert(place);
                    }
                }
            }
        }
        let mut report = String::new();
        for (parent, edges) in edges {
            let reach = |from: &str| {
                let mut reached = BTreeSet::new();
                let mut next = vec![from.to_owned()];
                while let Some(from) = next.pop() {
                    let used = edges.keys().filter(|(user, _)| *user == from);
                    next.extend(
                        used.map(|(_, used)| used.clone())
                            .filter(|used| reached.insert(used.clone())),
                    );
                }
                reached
            };
            let reached: BTreeMap<_, _> =
                edges.keys().map(|(user, _)| (*user, reach(user))).collect();
            let joined = |a: &str, b: &str| {
                reached.get(a).is_some_and(|r| r.contains(b))
                    && reached.get(b).is_some_and(|r| r.contains(a))
            };
            let cycles: BTreeSet<Vec<_>> = reached
                .keys()
                .filter(|user| joined(user, user))
                .map(|user| {
                    reached
                        .keys()
                        .copied()
                        .filter(|other| joined(user, other))
                        .collect()
                })
                .collect();
            let place = [&[krate.to_owned()], parent].concat().join("::");
            for cycle in cycles {
                report += &format!("cycle in {place}: {}\n", cycle.join(", "));
                for ((user, used), places) in &edges {
                    if cycle.contains(user) && cycle.contains(&&**used) {
                        let places = places
                            .iter()
                            .map(|place| format!("    {user} -> {used}: {place}\n"));
                        report.extend(places);
                    }
                }
            }
        }
        report
    }
}

/// Returns whether these are the brackets of an attribute that marks an item as test code.
fn is_test(attribute: Option<&TokenTree>) -> bool {
    let text = attribute.map(ToString::to_string).unwrap_or_default();
    let text = text.replace(' ', "");
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test")
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

/// Returns how many tokens the next item has.
fn end_of_item(tokens: &[TokenTree]) -> usize {
    let last = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        other => is_punct(Some(other), ';'),
    };
    tokens
        .iter()
        .position(last)
        .map_or(tokens.len(), |last| last + 1)
}

fn end_of_item_at_semicolon(tokens: &[TokenTree]) -> usize {
    let last = tokens.iter().position(|token| is_punct(Some(token), ';'));
    last.unwrap_or(tokens.len())
}

/// Returns the path that these tokens start with.
fn path(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    for part in tokens.chunks(3) {
        let TokenTree::Ident(ident) = &part[0] else {
            break;
        };
        path.push(ident.to_string());
        if !is_punct(part.get(1), ':') || !is_punct(part.get(2), ':') {
            break;
        }
    }
    path
}

/// Lists the paths of a `use` with the names that they get.
fn leaves(tree: &[TokenTree], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
    for branch in tree.split(|token| is_punct(Some(token), ',')) {
        let mut path = prefix.to_vec();
        let mut alias = None;
        let mut tokens = branch.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    alias = tokens.next().map(ToString::to_string);
                }
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Group(group) => {
                    let tree: Vec<_> = group.stream().into_iter().collect();
                    leaves(&tree, &path, found);
                    path.clear();
                }
                _ => {}
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(last) = path.last().cloned() {
            found.push((path, alias.unwrap_or(last)));
        }
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[expect(clippy::disallowed_methods, reason = "the sources are what is tested")]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
