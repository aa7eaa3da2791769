//! Which entries a user means.

/// Paths of entries, or of folders of entries; all entries where there are none.
#[derive(Clone, Debug)]
pub struct Selection {
    paths: Vec<String>,
}

impl Selection {
    /// Takes `paths` as they were typed; a slash at the end means nothing.
    #[must_use]
    pub fn new(paths: &[String]) -> Self {
        Self { paths: paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect() }
    }

    /// Whether the entry at `path` is meant.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        self.paths.is_empty() || self.which(path).next().is_some()
    }

    /// Which of the paths mean the entry at `path`.
    pub fn which(&self, path: &str) -> impl Iterator<Item = usize> {
        self.paths.iter().enumerate().filter(move |(_, selected)| lies_in(path, selected)).map(|(which, _)| which)
    }

    /// Where the entries lie: each means itself and everything from it on that begins with it. None lies in another, so
    /// that no entry is met twice.
    pub fn ranges(&self) -> impl Iterator<Item = &str> {
        let all = self.paths.is_empty().then_some("");
        let outermost = self.paths.iter().enumerate().filter(|(at, path)| {
            let others = self.paths.iter().enumerate().filter(|(other, _)| other != at);
            // Of two that are equal the first one counts.
            !others.into_iter().any(|(other_at, other)| lies_in(path, other) && (path != &other || other_at < *at))
        });
        all.into_iter().chain(outermost.map(|(_, path)| path.as_str()))
    }
}

/// Whether `path` is `folder`, or below it.
fn lies_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_mean_what_lies_below() {
        let selection = Selection::new(&["database/a/".into(), "objects/chunk/x".into()]);
        assert!(selection.takes("database/a/attempt-1/pre-data.sql"));
        assert!(selection.takes("objects/chunk/x"));
        assert!(!selection.takes("database/ab/x"));
        assert!(!selection.takes("objects/chunk/xy"));
        assert!(Selection::new(&[]).takes("anything"));
    }

    #[test]
    fn no_entry_is_met_twice_and_every_path_finds_its_own() {
        let selection = Selection::new(&["a/b".into(), "a".into(), "ab".into(), "a/".into()]);
        assert_eq!(selection.ranges().collect::<Vec<_>>(), ["a", "ab"]);
        assert_eq!(selection.which("a/b/c").collect::<Vec<_>>(), [0, 1, 3]);
    }
}
