//! The parts of `docs/reliability.md` that tests write.

use std::fs;
use std::path::{Path, PathBuf};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")
}

/// What the page says before this part, in it, and behind it; the marks apart.
fn split(page: &str, part: &str) -> [String; 3] {
    let (begin, end) = (format!("<!-- {part}: generated -->\n"), format!("<!-- {part}: end -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (kept, after) = rest.split_once(&end).unwrap();
    [format!("{before}{begin}"), kept.to_owned(), format!("{end}{after}")]
}

/// What the page says in this part.
pub fn kept(part: &str) -> String {
    let [_, kept, _] = split(&fs::read_to_string(path()).unwrap(), part);
    kept
}

/// Compares a part of the page with `text`, or, with `UPDATE_DOCS`, writes it.
pub fn keep(part: &str, text: &str) {
    let [before, kept, after] = split(&fs::read_to_string(path()).unwrap(), part);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(), format!("{before}{text}{after}")).unwrap();
        return;
    }
    assert!(kept == text, "docs/reliability.md is out of date: run this test with UPDATE_DOCS=1\n{text}");
}
