//! Compares what a dump holds with what its snapshot holds, so that a table that came out empty is never called dumped.

use std::collections::HashMap;

use super::catalog::{Sequence, Table, quote_qualified};
use super::data::Data;
use super::snapshot::Snapshot;
use super::{DumpError, Error};

/// An error unless every table, sequence and large object of the snapshot is in `data`, and as often. `counts` are the
/// rows of `tables`.
pub(super) fn check(snapshot: &Snapshot, tables: &[Table], counts: &[u64], data: &Data) -> Result<(), Error> {
    let database = snapshot.survey.name.as_str();
    check_tables(database, tables, counts, data)?;
    check_sequences(database, &snapshot.sequences, data)?;
    let (dumped, counted) = (data.large_objects.count, snapshot.large_objects);
    if dumped != counted {
        let object = "the large objects".to_owned();
        return Err(DumpError::Count { database: database.to_owned(), object, dumped, counted }.into());
    }
    Ok(())
}

fn check_tables(database: &str, tables: &[Table], counts: &[u64], data: &Data) -> Result<(), DumpError> {
    let mut dumped = data.tables.iter().peekable();
    for ((number, table), &counted) in (1..).zip(tables).zip(counts) {
        let object = || format!("table {}", table.quoted());
        let Some(found) = dumped.next_if(|found| found.number == number) else {
            return Err(DumpError::Lacks { database: database.to_owned(), object: object() });
        };
        if found.rows != counted {
            let (database, dumped) = (database.to_owned(), found.rows);
            return Err(DumpError::Count { database, object: object(), dumped, counted });
        }
    }
    match dumped.next() {
        Some(twice) => {
            let table = quote_qualified(&twice.schema, &twice.name);
            Err(DumpError::UnexpectedTable { database: database.to_owned(), table })
        }
        None => Ok(()),
    }
}

/// A sequence moves outside of any snapshot. It may be further than it was, never behind: the dump's rows could hold
/// numbers that it would give out again.
fn check_sequences(database: &str, sequences: &[Sequence], data: &Data) -> Result<(), DumpError> {
    let dumped: HashMap<_, _> = data.sequences.iter().map(|s| ((s.schema.as_str(), s.name.as_str()), s)).collect();
    for Sequence { schema, name, last_value, increment, cycle } in sequences {
        let sequence = quote_qualified(schema, name);
        let Some(found) = dumped.get(&(schema.as_str(), name.as_str())) else {
            return Err(DumpError::Lacks { database: database.to_owned(), object: format!("sequence {sequence}") });
        };
        let (Some(before), false) = (*last_value, *cycle) else { continue };
        let after = found.last_value;
        let went_back = !found.is_called || if *increment > 0 { after < before } else { after > before };
        if went_back {
            return Err(DumpError::SequenceWentBack { database: database.to_owned(), sequence, before, after });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pacharc_format::manifest;

    use super::*;

    fn sequence(last_value: Option<i64>, increment: i64, cycle: bool) -> Sequence {
        Sequence { schema: "s".into(), name: "q".into(), last_value, increment, cycle }
    }

    fn dumped(last_value: i64, is_called: bool) -> Data {
        let sequence = manifest::Sequence { schema: "s".into(), name: "q".into(), last_value, is_called };
        Data { sequences: vec![sequence], ..Data::default() }
    }

    #[test]
    fn every_table_is_there_once_with_all_rows() {
        let table = |name: &str| Table {
            oid: 1,
            schema: "s".into(),
            name: name.into(),
            partitioned: false,
            unlogged: false,
            file: 1,
            root: None,
            rows_may_move: false,
            extension_member: false,
            extension_filter: None,
            rows: 0,
            bytes: 0,
        };
        let tables = [table("a"), table("b")];
        let check = |found: &[(u32, u64)]| {
            let table = |&(number, rows): &(u32, u64)| manifest::Table { number, rows, ..manifest::Table::default() };
            let data = Data { tables: found.iter().map(table).collect(), ..Data::default() };
            check_tables("d", &tables, &[5, 0], &data)
        };
        assert!(check(&[(1, 5), (2, 0)]).is_ok());
        // What a TRUNCATE after the snapshot would give, were the table not locked.
        assert!(matches!(check(&[(1, 0), (2, 0)]), Err(DumpError::Count { dumped: 0, counted: 5, .. })));
        assert!(matches!(check(&[(1, 5)]), Err(DumpError::Lacks { .. })));
        assert!(matches!(check(&[(2, 0)]), Err(DumpError::Lacks { .. })));
        assert!(matches!(check(&[(1, 5), (1, 5), (2, 0)]), Err(DumpError::Lacks { .. })));
        assert!(matches!(check(&[(1, 5), (2, 0), (2, 0)]), Err(DumpError::UnexpectedTable { .. })));
    }

    #[test]
    fn sequences_only_go_on() {
        let check = |before, after: &Data| check_sequences("d", &[before], after).is_ok();
        assert!(check(sequence(Some(5), 1, false), &dumped(5, true)));
        assert!(check(sequence(Some(5), 1, false), &dumped(9, true)));
        assert!(!check(sequence(Some(5), 1, false), &dumped(4, true)));
        assert!(!check(sequence(Some(5), 1, false), &dumped(1, false)));
        assert!(check(sequence(Some(5), -1, false), &dumped(4, true)));
        assert!(!check(sequence(Some(5), -1, false), &dumped(6, true)));
        assert!(check(sequence(Some(5), 1, true), &dumped(1, true)));
        assert!(check(sequence(None, 1, false), &dumped(1, false)));
        assert!(!check(sequence(None, 1, false), &Data::default()), "it is missing");
    }
}
