//! Tracker, file sets and chunks: what refers to what is not there, and which commits are hurt by what is lacking.
//!
//! The tracker's graph leads from commits down to chunks (`commit/…` → `fileset/…` → `chunk/…`, and from file sets to file
//! sets, from index chunks to chunks). Here it is walked upwards, level by level, each level one pass over the sorted
//! references; each thing that is lacking has a bit of its own, so that all are walked at once.

use std::collections::{BTreeSet, HashMap};

use pacharc_format::{self as format, Record, Sorted};

use super::Report;
use super::damage::{NAMED, SourceDamage};
use super::dump::Dump;
use super::live::Lacking;

/// Tracked things above what is lacking that are remembered, about 50 bytes each. Few in unit tests, which would take long else.
const ABOVE: usize = if cfg!(test) { 20 } else { 200_000 };
/// Levels that are walked; Pachyderm's are few.
const LEVELS: usize = 1000;
/// Commits that are named for each thing.
const COMMITS: usize = 20;
/// Tracker objects whose name begins so hold a commit's file sets.
const COMMIT: &str = "commit/";

/// Something to start from: tracker objects, and what is wrong with them.
struct Origin {
    damage: SourceDamage,
    /// Whether it is damage only where it hurts a commit: file sets on their way may, for a moment, refer to chunks that
    /// are not uploaded yet.
    only_if_it_hurts: bool,
    int_ids: Vec<u64>,
}

impl Origin {
    /// Whether it is damage, when all that is `above` was looked through for commits.
    fn is_damage(&self, above: &Above) -> bool {
        !self.only_if_it_hurts || self.damage.hurts_count > 0 || !above.is_whole
    }
}

/// Finds what is lacking in `dump`, and whom it hurts.
pub(super) fn check(dump: &mut Dump, lacking: Lacking, report: &mut Report) -> format::Result<()> {
    let unnamed = lacking.count - lacking.objects.len() as u64;
    let mut origins = Vec::new();
    let mut chunks: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
    for object in lacking.objects {
        if let Some(chunk) = object.chunk {
            chunks.entry(chunk).or_default().push(origins.len());
        }
        let damage = SourceDamage {
            subject: object.path,
            problem: object.problem,
            healed_by: object.healed_by,
            ..SourceDamage::default()
        };
        origins.push(Origin { damage, only_if_it_hurts: false, int_ids: Vec::new() });
    }
    let more = Dangling::find(dump, &chunks, &mut origins)?;
    // One bit for all that are not named tells whether any of them hurts a commit.
    origins.push(Origin { damage: SourceDamage::default(), only_if_it_hurts: true, int_ids: more.unnamed });
    let above = walk(dump, &origins)?;
    name(dump, &mut origins, &above.bits)?;
    let rest = origins.pop().filter(|rest| rest.is_damage(&above));
    for origin in origins {
        if origin.is_damage(&above) {
            report.source.push(origin.damage);
        }
    }
    report.source.count += unnamed + rest.map_or(0, |rest| rest.int_ids.len() as u64) + more.unwalked;
    if more.file_sets_untracked > 0 {
        report.source.push(SourceDamage {
            subject: "storage.filesets".to_owned(),
            problem: format!(
                "{} file sets have no tracker object, and can never be collected",
                more.file_sets_untracked
            ),
            ..SourceDamage::default()
        });
    }
    Ok(())
}

/// References that lead nowhere.
#[derive(Default)]
struct Dangling {
    /// Rows of `filesets` that nothing tracks.
    file_sets_untracked: u64,
    /// Referenced chunks and file sets that are not there, beyond those that are named.
    unnamed: Vec<u64>,
    /// How many more; whom they hurt is not looked for, and they count as damage.
    unwalked: u64,
}

impl Dangling {
    /// Adds to `origins` the referenced chunks without a live row and the referenced file sets without a row; and gives
    /// the objects that are lacking, by their `chunks`, the tracker object to start from.
    fn find(
        dump: &mut Dump,
        chunks: &HashMap<[u8; 32], Vec<usize>>,
        origins: &mut Vec<Origin>,
    ) -> format::Result<Self> {
        let mut dangling = Self::default();
        // Which tracked chunks and file sets there are, by name, and whether anything refers to them.
        let (mut tracked_chunks, mut tracked_sets) = (dump.spool(), dump.spool());
        let mut referenced = Distinct::new(dump.references.sorted()?)?;
        for record in dump.tracked.sorted()? {
            let (int_id, name) = record?;
            let is_referenced = referenced.has(&int_id)?;
            let value = [int_id.as_slice(), &[u8::from(is_referenced)]].concat();
            if let Some(chunk) = name.strip_prefix(b"chunk/") {
                tracked_chunks.push(chunk, &value)?;
            } else if let Some(set) = name.strip_prefix(b"fileset/") {
                tracked_sets.push(set, &value)?;
            }
        }
        let mut live = Distinct::new(dump.live.sorted()?)?;
        for record in tracked_chunks.sorted()? {
            let (hex, value) = record?;
            let (int_id, is_referenced) = tracked(&value);
            let id: Option<[u8; 32]> = hex::decode(&hex).ok().and_then(|id| id.try_into().ok());
            for &origin in id.as_ref().and_then(|id| chunks.get(id)).into_iter().flatten() {
                if let Some(origin) = origins.get_mut(origin) {
                    origin.int_ids = vec![int_id];
                }
            }
            if !live.has_prefix(&[b"objects/chunk/".as_slice(), &hex].concat())? && is_referenced {
                let subject = format!("chunk {}", String::from_utf8_lossy(&hex));
                dangling.add(origins, subject, "it is referred to, and has no live object", int_id);
            }
        }
        let mut rows = dump.filesets.sorted()?;
        let mut row = rows.next().transpose()?;
        for record in tracked_sets.sorted()? {
            let (hex, value) = record?;
            while row.take_if(|(id, _)| *id < hex).is_some() {
                dangling.file_sets_untracked += 1;
                row = rows.next().transpose()?;
            }
            if row.take_if(|(id, _)| *id == hex).is_some() {
                row = rows.next().transpose()?;
                continue;
            }
            let subject = format!("file set {}", String::from_utf8_lossy(&hex));
            dangling.add(origins, subject, "the tracker has it, and storage.filesets has not", tracked(&value).0);
        }
        while row.is_some() {
            dangling.file_sets_untracked += 1;
            row = rows.next().transpose()?;
        }
        Ok(dangling)
    }

    fn add(&mut self, origins: &mut Vec<Origin>, subject: String, problem: &str, int_id: u64) {
        if origins.len() >= NAMED {
            if self.unnamed.len() < ABOVE / 2 {
                self.unnamed.push(int_id);
            } else {
                self.unwalked += 1;
            }
            return;
        }
        let damage = SourceDamage { subject, problem: problem.to_owned(), ..SourceDamage::default() };
        origins.push(Origin { damage, only_if_it_hurts: true, int_ids: vec![int_id] });
    }
}

/// A tracker object's `int_id`, and whether anything refers to it.
fn tracked(value: &[u8]) -> (u64, bool) {
    (big_endian(value), value.get(8) == Some(&1))
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Sorted records that are asked for keys in rising order.
struct Distinct {
    records: Sorted,
    next: Option<Record>,
}

impl Distinct {
    fn new(mut records: Sorted) -> format::Result<Self> {
        let next = records.next().transpose()?;
        Ok(Self { records, next })
    }

    /// Whether there is a record of this key.
    fn has(&mut self, key: &[u8]) -> format::Result<bool> {
        self.skip_to(key)?;
        Ok(self.next.as_ref().is_some_and(|(next, _)| next == key))
    }

    /// Whether there is a record whose key begins so.
    fn has_prefix(&mut self, prefix: &[u8]) -> format::Result<bool> {
        self.skip_to(prefix)?;
        Ok(self.next.as_ref().is_some_and(|(next, _)| next.starts_with(prefix)))
    }

    fn skip_to(&mut self, key: &[u8]) -> format::Result<()> {
        while self.next.take_if(|(next, _)| next.as_slice() < key).is_some() {
            self.next = self.records.next().transpose()?;
        }
        Ok(())
    }
}

/// What was found above the origins.
struct Above {
    /// For each tracker object, the bits of the origins below it.
    bits: HashMap<u64, u128>,
    /// Whether that is all of them.
    is_whole: bool,
}

/// Walks up from the origins, as far as there is room.
fn walk(dump: &mut Dump, origins: &[Origin]) -> format::Result<Above> {
    let mut above: HashMap<u64, u128> = HashMap::new();
    for (bit, origin) in origins.iter().enumerate() {
        for int_id in &origin.int_ids {
            *above.entry(*int_id).or_default() |= 1 << bit;
        }
    }
    let (mut level, mut is_whole) = (above.clone(), true);
    for _ in 0..LEVELS {
        if level.is_empty() {
            return Ok(Above { bits: above, is_whole });
        }
        let mut next: HashMap<u64, u128> = HashMap::new();
        for record in dump.references.sorted()? {
            let (to, from) = record?;
            let Some(bits) = level.get(&big_endian(&to)) else { continue };
            let from = big_endian(&from);
            if above.len() >= ABOVE && !above.contains_key(&from) {
                is_whole = false;
                continue;
            }
            let known = above.entry(from).or_default();
            let new = bits & !*known;
            if new != 0 {
                *known |= new;
                *next.entry(from).or_default() |= new;
            }
        }
        level = next;
    }
    Ok(Above { bits: above, is_whole: false })
}

/// Names the commits among those `above`.
fn name(dump: &mut Dump, origins: &mut [Origin], above: &HashMap<u64, u128>) -> format::Result<()> {
    if above.is_empty() {
        return Ok(());
    }
    // A commit stands in the tracker by its key, or from 2.11 on by its number (reference: `pfsdb`), and once for each of
    // its file sets.
    let mut by_key: HashMap<String, u128> = HashMap::new();
    let mut by_number: HashMap<u64, u128> = HashMap::new();
    for record in dump.tracked.sorted()? {
        let (int_id, name) = record?;
        let Some(bits) = above.get(&big_endian(&int_id)) else { continue };
        let name = String::from_utf8_lossy(&name);
        let Some(commit) = name.strip_prefix(COMMIT).and_then(commit_of) else { continue };
        match commit.parse() {
            Ok(number) => *by_number.entry(number).or_default() |= bits,
            Err(_) => *by_key.entry(commit.to_owned()).or_default() |= bits,
        }
    }
    if !by_number.is_empty() {
        for record in dump.commits.sorted()? {
            let (number, key) = record?;
            if let Some(bits) = by_number.remove(&big_endian(&number)) {
                *by_key.entry(String::from_utf8_lossy(&key).into_owned()).or_default() |= bits;
            }
        }
        for (number, bits) in by_number {
            *by_key.entry(format!("commit {number}")).or_default() |= bits;
        }
    }
    for (bit, origin) in origins.iter_mut().enumerate() {
        let hurts: BTreeSet<String> =
            by_key.iter().filter(|(_, bits)| **bits & (1 << bit) != 0).map(|(key, _)| shown(key)).collect();
        origin.damage.hurts_count = hurts.len() as u64;
        origin.damage.hurts = hurts.into_iter().take(COMMITS).collect();
    }
    Ok(())
}

/// The commit in `<commit>/diff/<file set>` and `<commit>/total/<file set>`; a commit's key has slashes of its own.
fn commit_of(name: &str) -> Option<&str> {
    let (rest, _) = name.rsplit_once('/')?;
    rest.strip_suffix("/diff").or_else(|| rest.strip_suffix("/total"))
}

/// A commit's key as pachctl prints it: the type of a user's repository is left out.
fn shown(key: &str) -> String {
    key.replacen(".user@", "@", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::closed::live::LackingObject;

    const CHUNK: [u8; 32] = [7; 32];

    /// commit 3 → file set → chunk 7; a temporary file set → chunk 8, which has no object.
    fn dump() -> Dump {
        let mut dump = Dump::new("pachyderm", &std::env::temp_dir(), 1 << 20);
        let (seven, eight) = (hex::encode(CHUNK), hex::encode([8; 32]));
        let mut track = |id: u64, name: &str| dump.tracked.push(&id.to_be_bytes(), name.as_bytes()).unwrap();
        track(1, &format!("chunk/{seven}"));
        track(2, "fileset/aa");
        track(3, "commit/3/total/aa");
        track(4, "commit/default/images.user@0b/diff/aa");
        track(5, &format!("chunk/{eight}"));
        track(6, "fileset/bb");
        track(7, "tmp//x-1/0");
        for (from, to) in [(2_u64, 1_u64), (3, 2), (4, 2), (6, 5), (7, 6)] {
            dump.references.push(&to.to_be_bytes(), &from.to_be_bytes()).unwrap();
        }
        dump.live.push(format!("objects/chunk/{seven}.0000000000000001").as_bytes(), &[0; 8]).unwrap();
        dump.filesets.push(b"aa", b"").unwrap();
        dump.filesets.push(b"bb", b"").unwrap();
        dump.commits.push(&3_u64.to_be_bytes(), b"lab/wide.meta@0a").unwrap();
        dump
    }

    fn report(mut dump: Dump, lacking: Lacking) -> Vec<(String, Vec<String>)> {
        let mut report = Report::default();
        check(&mut dump, lacking, &mut report).unwrap();
        assert_eq!(report.source.count, report.source.named.len() as u64);
        report.source.named.into_iter().map(|damage| (damage.subject, damage.hurts)).collect()
    }

    fn object() -> LackingObject {
        let path = "objects/chunk/x".to_owned();
        LackingObject { path, chunk: Some(CHUNK), problem: String::new(), healed_by: None }
    }

    #[test]
    fn what_is_whole_has_nothing_to_tell() {
        // Chunk 8 is referred to by a temporary file set alone.
        assert_eq!(report(dump(), Lacking::default()), []);
    }

    #[test]
    fn a_missing_object_leads_to_its_commits() {
        let lacking = Lacking { objects: vec![object()], count: 1, ..Lacking::default() };
        let hurt = vec!["default/images@0b".to_owned(), "lab/wide.meta@0a".to_owned()];
        assert_eq!(report(dump(), lacking), [("objects/chunk/x".to_owned(), hurt)]);
    }

    #[test]
    fn references_that_lead_nowhere_are_told_where_a_commit_is_hurt() {
        let mut dump = dump();
        dump.references.push(&5_u64.to_be_bytes(), &3_u64.to_be_bytes()).unwrap();
        dump.tracked.push(&9_u64.to_be_bytes(), b"fileset/cc").unwrap();
        dump.references.push(&9_u64.to_be_bytes(), &4_u64.to_be_bytes()).unwrap();
        dump.tracked.push(&10_u64.to_be_bytes(), b"fileset/dd").unwrap();
        dump.filesets.push(b"ee", b"").unwrap();
        let found = report(dump, Lacking::default());
        let subjects: Vec<&str> = found.iter().map(|(subject, _)| subject.as_str()).collect();
        let chunk = format!("chunk {}", hex::encode([8; 32]));
        assert_eq!(subjects, [&chunk, "file set cc", "storage.filesets"]);
    }

    #[test]
    fn file_sets_that_nothing_tracks_are_counted_wherever_they_stand() {
        let mut dump = dump();
        for id in [b"00", b"a0", b"ab", b"cc", b"dd"] {
            dump.filesets.push(id, b"").unwrap();
        }
        let mut report = Report::default();
        check(&mut dump, Lacking::default(), &mut report).unwrap();
        let problems: Vec<&str> = report.source.named.iter().map(|damage| damage.problem.as_str()).collect();
        assert_eq!(problems, ["5 file sets have no tracker object, and can never be collected"]);
    }

    #[test]
    fn what_is_not_named_is_counted() {
        // Chunk 8 and three file sets, of which nobody has anything at first.
        let counted = |hurt: bool, sets: u64| {
            let mut dump = dump();
            for id in 0..sets {
                dump.tracked.push(&(20 + id).to_be_bytes(), format!("fileset/c{id:02}").as_bytes()).unwrap();
            }
            if hurt {
                dump.references.push(&20_u64.to_be_bytes(), &3_u64.to_be_bytes()).unwrap();
            }
            let objects = (0..NAMED).map(|_| object()).collect();
            let lacking = Lacking { objects, count: NAMED as u64 + 7, ..Lacking::default() };
            let mut report = Report::default();
            check(&mut dump, lacking, &mut report).unwrap();
            assert_eq!(report.source.named.len(), NAMED);
            report.source.count - NAMED as u64 - 7
        };
        assert_eq!(counted(false, 3), 0);
        assert_eq!(counted(true, 3), 4);
        // Those beyond what can be walked count, whomever they hurt.
        assert_eq!(counted(false, ABOVE as u64 / 2 + 4), 5);
    }

    #[test]
    fn what_cannot_be_walked_to_its_end_is_damage() {
        let subjects = |sets: u64| {
            let mut dump = dump();
            for id in 0..sets {
                dump.references.push(&5_u64.to_be_bytes(), &(100 + id).to_be_bytes()).unwrap();
            }
            report(dump, Lacking::default()).into_iter().map(|(subject, _)| subject).collect::<Vec<_>>()
        };
        assert_eq!(subjects(ABOVE as u64 / 2), [""; 0]);
        assert_eq!(subjects(ABOVE as u64), [format!("chunk {}", hex::encode([8; 32]))]);
    }
}
