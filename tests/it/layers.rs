//! The shape of the code: how much of it the command holds, in how many layers, and that no two folders of the command or the library
//! import each other. The imports are read from the sources: `use` statements and paths that begin with `crate`, `self` or `super`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The largest number of import layers of the command.
const LAYERS: usize = 7;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the `src` folders of the workspace: the command's first, then those of the crates.
fn source_folders() -> Vec<PathBuf> {
    let mut crates: Vec<PathBuf> =
        std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")).collect();
    crates.retain(|folder| folder.is_dir());
    crates.sort();
    crates.insert(0, root().join("src"));
    crates
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A module's path below its crate, such as `["align", "pairs"]`; empty for the root.
type Module = Vec<String>;

/// Returns the module that a file holds.
fn module_of(folder: &Path, file: &Path) -> Module {
    let mut parts: Module = file
        .strip_prefix(folder)
        .unwrap()
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into())
        .collect();
    if parts.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        parts.pop();
    }
    parts
}

/// Returns a source without comments, strings and what only tests compile: a `#[cfg(test)]` module ends a file.
fn code_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let mut code = String::new();
    for line in source.lines() {
        // Quotes are dropped with the text between them; a character literal of a quote is rare enough to be harmless.
        for (i, part) in line.split("//").next().unwrap_or("").split('"').enumerate() {
            if i % 2 == 0 {
                code += part;
            }
        }
        code.push('\n');
    }
    code
}

/// Returns the paths that a source names from `crate`, `self` or `super` on, groups in braces taken apart.
fn paths_of(code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            // `$crate::` and `pub(crate)` are none; `super::super::` is read from its first part.
            if before.is_some_and(|c| is_name(c) || c == ':' || c == '$') {
                continue;
            }
            expand(&code[at..], &[], &mut found);
        }
    }
    found
}

/// Returns the paths that the root of a crate names without `crate`: `use config::load;`, `config::load(..)`.
fn paths_in_root(code: &str, modules: &BTreeSet<Module>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for module in modules.iter().filter(|module| module.len() == 1) {
        for (at, _) in code.match_indices(&format!("{}::", module[0])) {
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                expand(&code[at..], &["crate".to_owned()], &mut found);
            }
        }
    }
    found
}

/// Reads a path, or a group of paths, after a prefix. Returns the rest of the text.
fn expand<'t>(text: &'t str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.chars().next() {
                None => return rest,
                Some('}') => return &rest[1..],
                Some(',') => rest = &rest[1..],
                Some(_) => {
                    let after = expand(rest, prefix, found);
                    // Whatever follows a name, such as `as other`, ends at the comma.
                    let end = after.find([',', '}']).unwrap_or(after.len());
                    rest = &after[end..];
                }
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let mut path = prefix.to_vec();
    if end > 0 {
        path.push(text[..end].to_owned());
    }
    match text[end..].strip_prefix("::") {
        Some(rest) if end > 0 => expand(rest, &path, found),
        _ => {
            found.push(path);
            // A name always advances; anything else, such as `*`, is skipped.
            if end > 0 { &text[end..] } else { text.get(1..).unwrap_or("") }
        }
    }
}

/// The imports of a source folder: from each module to the modules it names.
struct Imports {
    modules: BTreeSet<Module>,
    arrows: BTreeSet<(Module, Module)>,
}

impl Imports {
    fn read(folder: &Path) -> Self {
        let files: Vec<PathBuf> = rust_files(folder).into_iter().filter(|file| !is_test(file)).collect();
        let modules: BTreeSet<Module> = files.iter().map(|file| module_of(folder, file)).collect();
        let mut arrows = BTreeSet::new();
        for file in &files {
            let from = module_of(folder, file);
            let code = code_of(&std::fs::read_to_string(file).unwrap());
            let mut paths = paths_of(&code);
            if from.is_empty() {
                paths.extend(paths_in_root(&code, &modules));
            }
            for path in paths {
                let to = resolve(&from, &path, &modules);
                // A module and its parts belong together: only the root is above all that it names.
                if to != from && !to.is_empty() && (from.is_empty() || !to.starts_with(&from)) {
                    arrows.insert((from.clone(), to));
                }
            }
        }
        Self { modules, arrows }
    }
}

/// Returns whether a file holds nothing but tests.
fn is_test(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || name == "testing"
}

/// Returns the module that a path leads to: its longest beginning that is one.
fn resolve(from: &Module, path: &[String], modules: &BTreeSet<Module>) -> Module {
    let mut at: Module = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" => from.clone(),
        _ => from[..from.len().saturating_sub(1)].to_vec(),
    };
    for part in &path[1..] {
        if part == "super" {
            at.pop();
            continue;
        }
        at.push(part.clone());
        if !modules.contains(&at) {
            at.pop();
            break;
        }
    }
    at
}

/// Returns the groups of nodes that reach each other, those that others need first.
fn components<T: Ord + Clone>(nodes: &BTreeSet<T>, arrows: &BTreeSet<(T, T)>) -> Vec<Vec<T>> {
    let reach = |start: &T| {
        let mut seen = BTreeSet::from([start.clone()]);
        let mut open = vec![start.clone()];
        while let Some(at) = open.pop() {
            for (_, to) in arrows.iter().filter(|(from, _)| *from == at) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&T, BTreeSet<T>> = nodes.iter().map(|node| (node, reach(node))).collect();
    let mut groups: Vec<Vec<T>> = Vec::new();
    for node in nodes {
        if groups.iter().any(|group| group.contains(node)) {
            continue;
        }
        groups.push(reached[node].iter().filter(|other| reached[*other].contains(node)).cloned().collect());
    }
    groups.sort_by_key(|group| reached[&group[0]].len());
    groups
}

/// Returns the layer of each node: one more than the highest that it imports.
fn layers<T: Ord + Clone>(nodes: &BTreeSet<T>, arrows: &BTreeSet<(T, T)>) -> BTreeMap<T, usize> {
    let mut layer: BTreeMap<T, usize> = BTreeMap::new();
    for group in components(nodes, arrows) {
        let below = arrows
            .iter()
            .filter(|(from, to)| group.contains(from) && !group.contains(to))
            .map(|(_, to)| layer.get(to).copied().unwrap_or(0))
            .max()
            .unwrap_or(0);
        group.into_iter().for_each(|node| _ = layer.insert(node, below + 1));
    }
    layer
}

/// Returns a module's top folder, or the module itself if it is one file.
fn top(module: &Module) -> String {
    module.first().cloned().unwrap_or_default()
}

#[test]
fn the_binary_holds_a_fifth_of_the_code_at_most() {
    let lines = |folder: &PathBuf| -> usize {
        rust_files(folder).iter().map(|file| std::fs::read_to_string(file).unwrap().lines().count()).sum()
    };
    let folders = source_folders();
    let (binary, all) = (lines(&folders[0]), folders.iter().map(lines).sum::<usize>());
    println!("{binary} of {all} lines are in src");
    assert!(5 * binary <= all, "{binary} of {all} lines are in src: move what is not the command itself into crates/");
}

#[test]
fn the_binary_has_few_layers() {
    let imports = Imports::read(&source_folders()[0]);
    let layers = layers(&imports.modules, &imports.arrows);
    let highest = layers.values().max().copied().unwrap_or(0);
    let listed: Vec<String> = (1..=highest)
        .map(|n| {
            let on = layers.iter().filter(|(_, layer)| **layer == n).map(|(module, _)| module.join("::"));
            format!("{n}: {}", on.collect::<Vec<_>>().join(", "))
        })
        .collect();
    println!("{}", listed.join("\n"));
    assert!(highest <= LAYERS, "src has {highest} import layers, {LAYERS} are allowed:\n{}", listed.join("\n"));
}

#[test]
fn no_two_folders_import_each_other() {
    let mut wrong = Vec::new();
    for folder in [root().join("src"), root().join("crates/setpoint/src")] {
        let imports = Imports::read(&folder);
        let tops: BTreeSet<String> = imports.modules.iter().map(top).collect();
        let mut example = BTreeMap::new();
        for (from, to) in imports.arrows.iter().filter(|(from, to)| !from.is_empty() && top(from) != top(to)) {
            example.entry((top(from), top(to))).or_insert((from, to));
        }
        let arrows: BTreeSet<(String, String)> = example.keys().cloned().collect();
        for group in components(&tops, &arrows).into_iter().filter(|group| group.len() > 1) {
            let within = |name: &String| group.contains(name);
            let how: Vec<String> = example
                .iter()
                .filter(|((from, to), _)| within(from) && within(to))
                .map(|(_, (from, to))| format!("    {} imports {}", from.join("::"), to.join("::")))
                .collect();
            let place = folder.strip_prefix(root()).unwrap().display().to_string();
            wrong.push(format!("{place}: {} import each other:\n{}", group.join(", "), how.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_from_sources() {
    let code = code_of(
        "use crate::a::{b, c::{self, D}, e as f};\n// use crate::not::this;\nfn x() { super::y::z(\"crate::text\") }",
    );
    let mut paths: Vec<String> = paths_of(&code).iter().map(|path| path.join("::")).collect();
    paths.sort();
    assert_eq!(paths, ["crate::a::b", "crate::a::c::D", "crate::a::c::self", "crate::a::e", "super::y::z"]);
    let name = |text: &str| -> Module { text.split("::").map(String::from).collect() };
    let modules: BTreeSet<Module> = ["a", "a::b", "x", "x::y"].map(name).into();
    assert_eq!(resolve(&name("x::y"), &name("crate::a::b::Thing"), &modules), name("a::b"));
    assert_eq!(resolve(&name("x::y"), &name("super::super::a::Thing"), &modules), name("a"));
    assert_eq!(resolve(&name("x"), &name("self::y::Thing"), &modules), name("x::y"));
    let arrows = BTreeSet::from([("c", "b"), ("b", "a"), ("a", "b"), ("b", "d")]);
    let nodes = BTreeSet::from(["a", "b", "c", "d"]);
    assert_eq!(layers(&nodes, &arrows), BTreeMap::from([("a", 2), ("b", 2), ("c", 3), ("d", 1)]));
}

/// Files that open others by themselves, and why nothing in those can be endless.
const OPEN_BY_THEMSELVES: [&str; 5] = [
    // Everybody else's way to a file.
    "crates/setpoint-files/src/",
    // Looks at the kind of file first.
    "crates/setpoint/src/partial.rs",
    // Reads the log that it has locked.
    "crates/setpoint-train/src/reference.rs",
    // Reads what the system says of itself.
    "crates/setpoint/src/session/memory.rs",
    // Tests alone.
    "src/cli/",
];

#[test]
fn files_are_read_within_bounds() {
    let mut found = Vec::new();
    for folder in source_folders() {
        for file in rust_files(&folder).into_iter().filter(|file| !is_test(file)) {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let code = code_of(&std::fs::read_to_string(&file).unwrap());
            let opens = ["fs::read(", "fs::read_to_string(", " File::open(", "(File::open(", "fs::File::open("];
            if opens.iter().any(|call| code.contains(call))
                && !OPEN_BY_THEMSELVES.iter().any(|allowed| name.starts_with(allowed))
            {
                found.push(name);
            }
        }
    }
    assert!(found.is_empty(), "setpoint_files::read, read_text and open refuse what is no file: {found:#?}");
}
