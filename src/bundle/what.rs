//! What lies at a path of the tree, in the words of those who miss it.

use pacharc_format::Key;
use pacharc_format::manifest::Manifest;

/// The object, the table or the file that an entry belongs to; `None` where the path says it all.
#[must_use]
pub fn what_lies_at(path: &str, manifest: Option<&Manifest>) -> Option<String> {
    if let Some(key) = Key::from_path(path) {
        return Some(format!("object {key}"));
    }
    if let Some(file) = path.strip_prefix("cluster/") {
        return Some(format!("the namespace's {file}"));
    }
    let (folder, rest) = path.strip_prefix("database/")?.split_once('/')?;
    let database = manifest.and_then(|manifest| manifest.databases.iter().find(|database| database.folder == folder));
    let name = database.map_or(folder, |database| database.name.as_str());
    // `VALID` lies beside the attempts.
    let (_, file) = rest.split_once('/')?;
    let Some(number) = file.strip_prefix("data/").and_then(|rest| rest.split('/').next()?.parse::<u32>().ok()) else {
        return Some(format!("{file} of database {name}"));
    };
    match database.and_then(|database| database.tables.iter().find(|table| table.number == number)) {
        Some(table) => Some(format!("rows of table {}.{} of database {name}", table.schema, table.name)),
        None => Some(format!("rows of table {number} (of tables.tsv) of database {name}")),
    }
}

#[cfg(test)]
mod tests {
    use pacharc_format::manifest::{Database, Table};

    use super::*;

    #[test]
    fn tables_objects_and_files_have_their_names() {
        let table = Table { number: 12, schema: "pfs".into(), name: "commits".into(), ..Table::default() };
        let database =
            Database { name: "pach".into(), folder: "p%".into(), tables: vec![table], ..Database::default() };
        let manifest = Manifest { databases: vec![database], ..Manifest::default() };
        let what = |path| what_lies_at(path, Some(&manifest)).unwrap_or_default();
        assert_eq!(what("database/p%/attempt-1/data/00012/00000000"), "rows of table pfs.commits of database pach");
        assert_eq!(
            what("database/p%/attempt-1/data/00013/00000000"),
            "rows of table 13 (of tables.tsv) of database pach"
        );
        assert_eq!(what("database/p%/attempt-1/pre-data.sql"), "pre-data.sql of database pach");
        assert_eq!(what("objects/other/a%2Fb"), "object a/b");
        assert_eq!(what("cluster/helm/values.yaml"), "the namespace's helm/values.yaml");
        assert_eq!(what("database/p%/VALID"), "");
        assert_eq!(what("pieces/1/path"), "");
    }
}
