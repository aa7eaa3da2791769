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
        self.paths.is_empty() || self.which(path).is_some()
    }

    /// Which of the paths means the entry at `path`.
    #[must_use]
    pub fn which(&self, path: &str) -> Option<usize> {
        self.paths.iter().position(|selected| {
            let rest = path.strip_prefix(selected.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The paths, each with the end of what it may mean: everything from it on that begins with it.
    pub fn ranges(&self) -> impl Iterator<Item = &str> {
        let all = self.paths.is_empty().then_some("");
        all.into_iter().chain(self.paths.iter().map(String::as_str))
    }
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
}
