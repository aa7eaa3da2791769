//! The migrations table: dense from 0, every one ended, the last one as the manifest says.

use super::Report;
use super::damage::SourceDamage;
use super::dump::Migration;

/// Checks what the dump has against `schema_version`, the manifest's.
pub(super) fn check(migrations: &[Migration], schema_version: Option<i64>, report: &mut Report) {
    let mut sorted = migrations.to_vec();
    sorted.sort_by_key(|migration| migration.id);
    let last = sorted.last().map(|migration| migration.id);
    if last != schema_version {
        let text = |version: Option<i64>| version.map_or("none".to_owned(), |version| version.to_string());
        report.contradictions.push(format!(
            "the dump's last migration is {}, and the manifest's {}",
            text(last),
            text(schema_version)
        ));
    }
    for migration in sorted.iter().filter(|migration| !migration.ended) {
        report.source.push(SourceDamage {
            subject: format!("migration {}", migration.id),
            problem: "it has begun and not ended: the source was being upgraded, or an upgrade failed".to_owned(),
            ..SourceDamage::default()
        });
    }
    let gap = sorted.iter().zip(0..).find(|(migration, id)| migration.id != *id);
    if let Some((_, id)) = gap {
        report.source.push(SourceDamage {
            subject: format!("migration {id}"),
            problem: "the table of migrations lacks it (they are numbered from 0 without a gap)".to_owned(),
            ..SourceDamage::default()
        });
    }
    if let Some(last) = last.filter(|last| !crate::pachyderm::is_known(*last)) {
        report.warnings.push(format!(
            "migration {last} is of no release of Pachyderm that this version of pacharc knows: what it checks may have changed"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ids: &[i64], schema_version: i64) -> (usize, u64, usize) {
        let migrations: Vec<_> = ids.iter().map(|&id| Migration { id: id.abs(), ended: id >= 0 }).collect();
        let mut report = Report::default();
        check(&migrations, Some(schema_version), &mut report);
        (report.contradictions.len(), report.source.count, report.warnings.len())
    }

    #[test]
    fn they_are_dense_ended_and_known() {
        let whole: Vec<i64> = (0..=59).rev().collect();
        assert_eq!(found(&whole, 59), (0, 0, 0));
        assert_eq!(found(&whole, 53), (1, 0, 0));
        assert_eq!(found(&whole[..30], 59), (0, 1, 0));
        assert_eq!(found(&[0, -1], 1), (0, 1, 1));
        assert_eq!(found(&[], 0), (1, 0, 0));
    }
}
