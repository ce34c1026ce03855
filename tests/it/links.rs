//! The pages: every link leads somewhere, and the manual's table of contents has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::fixture::root;

/// The address of the repository's files. Pages of the manual use it for files outside `docs/`, which the site does not have.
const FILES: &str = "https://github.com/setpoint-rs/setpoint/blob/main/";

/// Returns the Markdown files of the repository, relative to its root.
fn pages() -> Vec<PathBuf> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "runs", "node_modules"].contains(&name.as_str()) {
                    visit(&path, found);
                }
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    visit(root(), &mut found);
    found.sort();
    assert!(found.len() > 25, "{found:?}");
    found
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// Returns the lines of a text outside code blocks, code in backticks removed.
fn prose(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line.split('`').step_by(2).collect::<Vec<_>>().join("``"));
        }
    }
    lines
}

/// Returns the targets of a page's links and pictures.
fn links(text: &str) -> Vec<String> {
    let joined = prose(text).join("\n");
    let targets = joined.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.replace('\n', " ")).collect()
}

/// Returns the anchors of a page's headings, as GitHub and mdBook name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#') && !inside)
        else {
            continue;
        };
        let kept: String =
            title.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect();
        let slug = kept.replace(' ', "-");
        let count = seen.entry(slug.clone()).or_default();
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// Returns a path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts.iter().collect()
}

/// Returns the problem with a link of a page, if there is one.
fn problem(page: &Path, target: &str) -> Option<String> {
    let in_manual = page.starts_with("docs");
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path.strip_prefix(FILES) {
        Some(path) => PathBuf::from(path),
        None if target.contains("://") || target.starts_with("mailto:") => return None,
        None if path.is_empty() => page.to_owned(),
        None => normal(&page.parent().unwrap().join(path)),
    };
    if !root().join(&file).exists() {
        return Some(format!("{} does not exist", file.display()));
    }
    if in_manual && !path.starts_with(FILES) && !file.starts_with("docs") {
        return Some(format!("the manual's site has no {}: link {FILES}{}", file.display(), file.display()));
    }
    let known = anchor.is_empty() || anchors(&read(&file)).contains(anchor);
    (!known).then(|| format!("{} has no heading #{anchor}", file.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for target in links(&read(&page)) {
            checked += 1;
            wrong.extend(problem(&page, &target).map(|text| format!("{}: ({target}) {text}", page.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "only {checked} links were found");
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let summary = read(Path::new("docs/SUMMARY.md"));
    let mut listed: Vec<String> = links(&summary);
    listed.sort();
    let mut pages: Vec<String> = pages()
        .iter()
        .filter_map(|page| page.strip_prefix("docs").ok().map(|page| page.to_string_lossy().replace('\\', "/")))
        .filter(|page| page != "SUMMARY.md")
        .collect();
    pages.sort();
    assert_eq!(listed, pages, "docs/SUMMARY.md");
}

#[test]
fn lines_of_prose_are_short() {
    let mut long = Vec::new();
    // The notes on goldens are for those who make them again.
    for page in pages().iter().filter(|page| !page.starts_with("tests")) {
        let mut inside = false;
        for (at, line) in read(page).lines().enumerate() {
            inside ^= line.trim_start().starts_with("```");
            if !inside && !line.starts_with('|') && line.chars().count() > 120 {
                long.push(format!("{}:{}", page.display(), at + 1));
            }
        }
    }
    assert!(long.is_empty(), "more than 120 characters: {}", long.join(" "));
}

#[test]
fn links_and_headings_are_found() {
    let text =
        "# One `two`\n## Three (and four)\n## One `two`\n```sh\n# no heading\n```\n[a](B.md#c) `[no](x)` [d](\nE.md)\n";
    assert_eq!(links(text), ["B.md#c", " E.md"]);
    let expected = ["one-two", "one-two-1", "three-and-four"];
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(normal(Path::new("docs/dev/../X.md")), Path::new("docs/X.md"));
    assert!(problem(Path::new("docs/RUNS.md"), "../README.md").unwrap().contains("the manual's site has no README.md"));
    assert!(problem(Path::new("README.md"), "docs/NONE.md").unwrap().contains("does not exist"));
    assert!(problem(Path::new("README.md"), "docs/RUNS.md#none").unwrap().contains("no heading"));
}
