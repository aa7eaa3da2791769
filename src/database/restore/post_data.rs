//! What comes after the rows: indexes, keys and foreign keys, several at a time; everything else in its order.

use std::collections::VecDeque;

use super::sessions::Sessions;
use super::statements::Script;
use crate::database::Error;

/// How many statements are kept to be run in parallel before they are run.
const MOST_KEPT: usize = 10_000;

/// Statements on event triggers.
const EVENT_TRIGGERS: &[&str] = &["CREATE EVENT TRIGGER ", "ALTER EVENT TRIGGER ", "COMMENT ON EVENT TRIGGER "];

/// Which statements may run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An index, or a constraint that makes one: neither needs another one of its kind.
    Index,
    /// A foreign key, which needs the other table's key.
    ForeignKey,
    /// Anything else: alone, after all before it.
    Other,
}

impl Kind {
    fn of(statement: &str) -> Self {
        if statement.starts_with("CREATE INDEX ") || statement.starts_with("CREATE UNIQUE INDEX ") {
            return Self::Index;
        }
        let constraint = statement.strip_prefix("ALTER TABLE ").and_then(|rest| {
            // pg_dump puts the action on a line of its own; a name may hold anything, and is quoted.
            let action = rest.rsplit_once("\n    ADD CONSTRAINT ")?.1;
            let (_, definition) = action.strip_prefix('"')?.split_once("\" ")?;
            Some(definition)
        });
        match constraint {
            Some(definition) if definition.starts_with("FOREIGN KEY ") => Self::ForeignKey,
            Some(definition) if ["PRIMARY KEY ", "UNIQUE ", "EXCLUDE "].iter().any(|k| definition.starts_with(k)) => {
                Self::Index
            }
            _ => Self::Other,
        }
    }
}

/// Takes the statements of post-data as they come.
#[derive(Debug)]
pub(super) struct PostData {
    script: Script,
    /// Statements of the same kind that follow each other.
    kept: VecDeque<String>,
    kind: Kind,
    /// What says how its literals are to be read.
    strings: String,
    /// Event triggers: what they log or forbid is no part of what a restore does.
    event_triggers: Vec<String>,
}

impl Default for PostData {
    fn default() -> Self {
        Self {
            script: Script::new("post-data.sql"),
            kept: VecDeque::new(),
            kind: Kind::Other,
            strings: String::new(),
            event_triggers: Vec::new(),
        }
    }
}

impl PostData {
    /// Takes the next part of the file.
    pub(super) async fn take(&mut self, sessions: &mut Sessions, part: &[u8]) -> Result<(), Error> {
        self.script.push(part)?;
        while let Some(statement) = self.script.next()? {
            // Bundles of before have it as the source had it, and literals in the server's texts that go by it.
            if statement.starts_with("SET standard_conforming_strings ") {
                self.run_kept(sessions).await?;
                self.strings.clone_from(&statement);
                sessions.run_statements([statement]).await?;
                continue;
            }
            if EVENT_TRIGGERS.iter().any(|beginning| statement.starts_with(beginning)) {
                self.event_triggers.push(statement);
                continue;
            }
            // Settings are those of our sessions already; nothing made here depends on default_tablespace and the like.
            if statement.starts_with("SET ") || statement.starts_with("SELECT pg_catalog.set_config('search_path'") {
                continue;
            }
            let kind = Kind::of(&statement);
            if kind != self.kind || kind == Kind::Other || self.kept.len() == MOST_KEPT {
                self.run_kept(sessions).await?;
            }
            self.kind = kind;
            self.kept.push_back(statement);
        }
        Ok(())
    }

    /// Runs what is left but the statements on event triggers, and gives those.
    pub(super) async fn finish(mut self, sessions: &mut Sessions) -> Result<Vec<String>, Error> {
        self.run_kept(sessions).await?;
        self.script.finish()?;
        Ok(self.event_triggers)
    }

    async fn run_kept(&mut self, sessions: &mut Sessions) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.kept);
        if statements.len() < 2 {
            return sessions.run_statements(statements).await;
        }
        sessions.run_at_once(statements, &self.strings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (statement, kind) in [
            ("CREATE INDEX \"i\" ON \"s\".\"t\" USING btree (\"a\");", Kind::Index),
            ("CREATE UNIQUE INDEX \"i\" ON ONLY \"s\".\"t\" USING btree (\"a\");", Kind::Index),
            ("ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"k y\" PRIMARY KEY (\"a\");", Kind::Index),
            ("ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"k\" UNIQUE (\"a\");", Kind::Index),
            ("ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"k\" EXCLUDE USING gist (\"a\" WITH =);", Kind::Index),
            (
                "ALTER TABLE \"s\".\"t\"\n    ADD CONSTRAINT \"k\" FOREIGN KEY (\"a\") REFERENCES \"s\".\"u\"(\"b\");",
                Kind::ForeignKey,
            ),
            ("ALTER TABLE \"s\".\"t\"\n    ADD CONSTRAINT \"k\" CHECK ((\"a\" > 0)) NOT VALID;", Kind::Other),
            ("ALTER INDEX \"s\".\"i\" ATTACH PARTITION \"s\".\"j\";", Kind::Other),
            ("ALTER TABLE \"s\".\"t\" CLUSTER ON \"i\";", Kind::Other),
            (
                "CREATE TRIGGER \"x\" BEFORE INSERT ON \"s\".\"t\" FOR EACH ROW EXECUTE FUNCTION \"s\".\"f\"();",
                Kind::Other,
            ),
            ("REFRESH MATERIALIZED VIEW \"s\".\"v\";", Kind::Other),
        ] {
            assert_eq!(Kind::of(statement), kind, "{statement}");
        }
    }
}
