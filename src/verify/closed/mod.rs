//! Level *closed*: what the dump in the bundle says must exist, joined with what the bundle holds.
//!
//! Everything is read from the bundle's own COPY text, in the same pass that checks its bytes: the live set
//! (`storage.chunk_objects`) is compared with the catalog, the migrations must be complete, and tracker, file sets and
//! chunks must refer to what is there. What the *source* lacked or broke is told apart from damage to the bundle, and with
//! it the commits that it hurts.

mod damage;
mod dump;
mod live;
mod migrations;
mod references;

use std::path::Path;

use pacharc_format::manifest::{DatabaseKind, Manifest};
use pacharc_format::{self as format, CatalogLine, Head};

pub use damage::SourceDamage;
pub(super) use damage::SourceDamages;
pub(super) use dump::{Dump, Wanted};

use live::LiveJoin;

/// The check of one bundle, as far as it has been read.
pub(super) struct ClosedCheck {
    folder: String,
    join: Option<LiveJoin>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Report {
    /// Where catalog and dump, or manifest and dump, contradict each other: damage to the bundle.
    pub(super) contradictions: Vec<String>,
    /// What was wrong before the backup.
    pub(super) source: SourceDamages,
    /// Worth a word, and no damage.
    pub(super) warnings: Vec<String>,
}

impl ClosedCheck {
    /// The check of the bundle that begins with `head`, and the reader of its dump; `None` where there is no live set to
    /// compare with: no database of Pachyderm's, or no bucket.
    pub(super) fn new(head: &Head, temp_dir: &Path, memory: usize) -> Option<(Self, Dump)> {
        head.bucket.as_ref()?;
        // A backup takes its live set from the first one, too.
        let database = head.databases.iter().find(|database| database.kind == DatabaseKind::Pachyderm)?;
        let dump = Dump::new(&database.folder, temp_dir, memory);
        Some((Self { folder: database.folder.clone(), join: None }, dump))
    }

    /// Takes a block of the catalog, behind which no more of the dump comes.
    pub(super) fn catalog(&mut self, lines: &[CatalogLine], dump: &mut Dump) -> format::Result<()> {
        let join = match &mut self.join {
            Some(join) => join,
            None => self.join.insert(LiveJoin::new(dump.live.sorted()?)?),
        };
        lines.iter().try_for_each(|line| join.line(line))
    }

    /// All was read.
    pub(super) fn finish(self, mut dump: Dump, manifest: &Manifest) -> format::Result<Report> {
        let mut report = Report::default();
        if dump.attempt != manifest.attempt {
            report.contradictions.push(format!(
                "the manifest names attempt {}, and the last in the bundle is attempt {}",
                manifest.attempt, dump.attempt
            ));
            return Ok(report);
        }
        report.contradictions.append(&mut dump.problems);
        let join = match self.join {
            Some(join) => join,
            None => LiveJoin::new(dump.live.sorted()?)?,
        };
        let mut lacking = join.finish()?;
        report.contradictions.append(&mut lacking.contradictions);
        let database = manifest.databases.iter().find(|database| database.folder == self.folder);
        let schema_version = database.and_then(|database| database.schema_version);
        migrations::check(&dump.migrations, schema_version, &mut report);
        let told = manifest.objects.as_ref().and_then(|objects| objects.closed);
        if told != Some(lacking.count == lacking.misjudged) && report.contradictions.is_empty() {
            report.contradictions.push(match told {
                Some(true) => {
                    "the manifest calls the bundle closed, and its dump names live objects that it lacks".into()
                }
                _ => "the manifest does not call the bundle closed, and it has every live object of its dump".into(),
            });
        }
        references::check(&mut dump, lacking, &mut report)?;
        Ok(report)
    }
}
