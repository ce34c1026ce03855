//! The guides in docs/dev: every path they name exists, and CONTRIBUTING.md and ARCHITECTURE.md link each of them.

use std::path::Path;

/// The guides that must exist.
const GUIDES: [&str; 6] = ["objective", "model-family", "data-format", "reward-source", "benchmark", "operation"];

/// Other pages for contributors, which walk through no commit.
const OTHERS: [&str; 1] = ["release"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns the paths of the repository that a text names in backticks or links to, without anchors and line numbers.
fn paths_in(text: &str) -> Vec<String> {
    let quoted = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local = |target: &&str| !target.contains("://") && !target.starts_with('#');
    quoted.filter(|text| is_path(text)).chain(linked.filter(local)).map(without_anchor).collect()
}

/// Returns whether a quoted text is a path of this repository: it begins with one of its folders, and is no pattern.
fn is_path(text: &str) -> bool {
    let folders = ["crates/", "src/", "docs/", "tests/", "benches/", "models/", "examples/"];
    folders.iter().any(|folder| text.starts_with(folder)) && !text.contains([' ', '*', '<', '{', '…'])
}

fn without_anchor(path: &str) -> String {
    path.split(['#', ':']).next().unwrap_or(path).to_owned()
}

#[test]
fn every_path_of_a_guide_exists() {
    for guide in GUIDES {
        let text = read(&format!("docs/dev/{guide}.md"));
        let paths = paths_in(&text);
        assert!(paths.len() >= 3, "docs/dev/{guide}.md names too few files to walk through: {paths:?}");
        for path in paths {
            // Links are relative to the guide, quoted paths to the root.
            let exists = root().join(&path).exists() || root().join("docs/dev").join(&path).exists();
            assert!(exists, "docs/dev/{guide}.md names {path}, which does not exist");
        }
    }
}

#[test]
fn every_guide_is_linked() {
    for page in ["CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = read(page);
        for guide in GUIDES {
            assert!(text.contains(&format!("(docs/dev/{guide}.md)")), "{page} must link docs/dev/{guide}.md");
        }
    }
    let listed: Vec<String> = std::fs::read_dir(root().join("docs/dev"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".md").to_owned())
        .collect();
    let is_known = |name: &String| GUIDES.contains(&name.as_str()) || OTHERS.contains(&name.as_str());
    assert!(listed.iter().all(is_known), "guides that no test checks: {listed:?}");
}

#[test]
fn paths_are_found_in_prose() {
    let text = "See `crates/a/src/b.rs:12`, `x = 1` and [the list](../METHODS.md#dpo).\n```text\n`src/none.rs`\n```\n\
                Not `crates/*/src` or `src/{a,b}.rs`, nor [elsewhere](https://example.org).";
    assert_eq!(paths_in(text), ["crates/a/src/b.rs", "../METHODS.md"]);
}
