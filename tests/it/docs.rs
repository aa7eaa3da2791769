//! What the documents point to is there: files, and the tests that stand for an argument's sentences.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` whose names end in `extension`.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let pages = files(&root().join("docs"), "md");
    let pages = pages.into_iter().chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut followed = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            assert!(page.parent().unwrap().join(file).exists(), "{}: {target}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[test]
fn sentences_name_real_tests() {
    let page = fs::read_to_string(root().join("docs/consistency.md")).unwrap();
    let sources = files(&root().join("tests/it"), "rs").into_iter().map(|path| fs::read_to_string(path).unwrap());
    let sources: String = sources.collect();
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains("_"));
    let named = |row: &str| -> BTreeSet<String> {
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        column.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut sentences = 0;
    for row in rows {
        let tests = named(row);
        assert!(!tests.is_empty(), "no test stands for: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
        }
        sentences += 1;
    }
    assert!(sentences >= 15, "{sentences}");
}

/// What the page has somebody compare, one part a day, is all thirty parts, however long the months are.
#[test]
fn a_part_each_day_is_everything() {
    let page = fs::read_to_string(root().join("docs/verify.md")).unwrap();
    let (_, behind) = page.split_once("`--sample $((").unwrap();
    let (part, _) = behind.split_once("))/30`").unwrap();
    let help = fs::read_to_string(root().join("src/cli/verify.rs")).unwrap();
    assert!(help.contains(&format!("--sample $(({part}))/30")), "{part}");
    let of_day = part.replace("$(date +%s)", "$((day * 86400 + 7000))");
    let script = format!("day=20000; while [ $day -lt 20030 ]; do echo $(({of_day})); day=$((day + 1)); done");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let parts: BTreeSet<u32> = printed.lines().map(|part| part.parse().unwrap()).collect();
    assert_eq!(parts, (1..=30).collect::<BTreeSet<u32>>());
}
