//! Verify: a bundle is what it says.
//!
//! Level *sums* needs no key: every byte of the file against the bundle's own sums. Level *contents* opens everything:
//! every entry's hash and size, every chunk against its key, the tables' rows and fingerprints, and that index, catalog
//! and manifest tell the same. Level *closed* compares the dump with the objects; level *restore* loads it into a server.

pub mod against;
mod closed;
mod error;
mod lost;
pub mod options;
mod outcome;
mod tables;
mod trial;

use std::sync::Arc;

use pacharc_format::manifest::Manifest;
use pacharc_format::{
    self as format, BundleReader, BundleStream, Entry, Found, Head, IndexLine, RangeReader, ReadOptions, Source, Spool,
    Unlock,
};

pub use closed::SourceDamage;
pub use error::Error;
pub use lost::Lost;
pub use options::{Level, Options};
pub use outcome::{Finding, Outcome, Verdict};
pub use trial::{Scratch, Trial, TriedDatabase};

use crate::budget::Budget;
use crate::bundle::{self, Input};
use crate::database::broken_rows;
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Event, Monitor, Phase};
use crate::options::Expectations;
use closed::{ClosedCheck, SourceDamages};
use lost::Losses;
use tables::TableCheck;
use trial::{Stop, TrialRun};

/// How often a bundle that does not fit is read again, at most: not again where the second read finds the same as the first.
const REREADS: u32 = 2;
/// Findings that are told one by one.
const FINDINGS: usize = 100;

/// Reads the whole bundle and comes to a verdict. SQL of one that must be a certain one is run only when it is known to be that.
///
/// # Errors
/// [`Error`] where there is no verdict to come to: not a bundle, an unknown format, a wrong key, another bundle than was
/// expected, a file that cannot be read, or not twice where it must be.
pub async fn run(
    options: &Options,
    unlock: Option<&Unlock>,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    if options.level > Level::Sums && unlock.is_none() {
        return Err(Error::NoKey);
    }
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), Arc::clone(&monitor)).await?;
    // Which one it is, a pipe tells when it is too late to load what came.
    if options.level == Level::Restore && !options.expect.is_empty() && !input.is_seekable() {
        return Err(bundle::Error::NotSeekable.into());
    }
    let (mut before, mut reread) = (None, 0);
    loop {
        let verification = Verification {
            options,
            input: &input,
            monitor: monitor.as_ref(),
            findings: Findings::default(),
            losses: Losses::default(),
        };
        let read = interrupt.guard(verification.run(unlock)).await;
        let damage = match &read {
            Ok(outcome) if outcome.verdict == Verdict::Damaged => Some(format!("{:?}", outcome.findings)),
            Err(Error::Format(error)) if error.is_damage() => Some(error.to_string()),
            _ => None,
        };
        // A read that fails is not damage yet: damage is what comes again.
        if damage.is_some() && damage != before && reread < REREADS && input.is_seekable() {
            (before, reread) = (damage, reread + 1);
            input.forget();
            continue;
        }
        let mut outcome = read?;
        outcome.reread = reread;
        if reread > 0 && damage.is_none() {
            let what = "the bundle was read wrong, and right when it was read again: what it lies on, or the way to it, is not sound";
            monitor.warn(what.into());
        }
        for Finding { path, problem, .. } in outcome.findings.iter().cloned() {
            monitor.event(Event::Damage { path, problem });
        }
        return Ok(outcome);
    }
}

/// One verification.
struct Verification<'a> {
    options: &'a Options,
    input: &'a Input,
    monitor: &'a dyn Monitor,
    findings: Findings,
    losses: Losses,
}

#[derive(Default)]
struct Findings {
    named: Vec<Finding>,
    count: u64,
}

impl<'a> Verification<'a> {
    async fn run(mut self, unlock: Option<&Unlock>) -> Result<Outcome, Error> {
        let level = self.options.level;
        self.monitor.phase(if level == Level::Sums { Phase::Sums } else { Phase::Contents });
        if let Some(length) = self.input.length().await {
            self.monitor.total(Counter::BundleBytes, length);
        }
        let limits = &self.options.limits;
        let budget = Budget::new(limits.max_memory);
        let read =
            ReadOptions { jobs: limits.jobs, memory: budget.read_alone - budget.rows, temp_dir: &limits.temp_dir };
        let mut stream = BundleStream::open(self.input.stream().await?, read).await?;
        if let Some(unlock) = unlock.filter(|_| level > Level::Sums) {
            self.unlock(&mut stream, unlock).await?;
        }
        let about = stream.about().clone();
        let (mut tables, mut head, mut manifest, mut end) = (TableCheck::new(budget.rows), None, None, None);
        let (mut check, mut told, mut broke_off) = (None, 0, false);
        let (mut source, mut trial) = (SourceDamages::default(), None);
        loop {
            let found = match stream.next().await {
                Ok(None) => break,
                Ok(Some(found)) => found,
                Err(error) if error.is_damage() => {
                    self.damage(&error);
                    broke_off = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            self.monitor.add(Counter::BundleBytes, stream.offset() - told);
            told = stream.offset();
            match found {
                Found::Entries(entries) => {
                    self.monitor.add(Counter::Entries, entries.len() as u64);
                    for (entry, _) in &entries {
                        tables.entry(entry).await?;
                    }
                    self.try_entries(&entries, &mut trial, &mut source).await?;
                }
                Found::Manifest(found) => manifest = Some(found),
                Found::Damage(error) => self.damage(&error),
                Found::End { id, signature, .. } => end = Some((id, signature)),
                Found::Head(found) => {
                    if level >= Level::Closed {
                        (check, tables.dump) = ClosedCheck::new(&found, &limits.temp_dir, budget.write).unzip();
                    }
                    if level == Level::Restore && self.options.expect.is_empty() {
                        let begun = TrialRun::begin(&self.options.scratch, &found, limits, self.monitor).await;
                        trial = self.settle(begun, &mut source)?.flatten();
                    }
                    head = Some(found);
                }
                Found::Catalog(lines) => {
                    self.losses.catalog(&lines);
                    if let (Some(check), Some(dump)) = (&mut check, &mut tables.dump) {
                        check.catalog(&lines, dump)?;
                    }
                }
                Found::Passed => {}
            }
        }
        if let Some(manifest) = &manifest
            && self.findings.count == 0
        {
            let contradiction = head.as_ref().and_then(|head| contradiction(head, manifest)).map(str::to_owned);
            let mut problems = tables.compare(manifest).await?;
            if level >= Level::Closed {
                problems.append(&mut tables.lacking_large_objects(manifest));
            }
            for problem in contradiction.into_iter().chain(problems) {
                self.finding(Finding { path: "manifest.json.zst.age".into(), offset: None, problem });
            }
        }
        if let Some(unlock) = unlock.filter(|_| level > Level::Sums && self.input.is_seekable())
            && (broke_off || self.losses.is_unnamed())
        {
            match self.losses.walk(self.input.ranges().await?, unlock).await {
                Ok((damage, found)) => {
                    // Of a torn bundle the end is perhaps told already.
                    let is_told = self.findings.named.iter().any(|finding| finding.path == "the end");
                    damage.iter().filter(|error| !(error.is_torn() && is_told)).for_each(|error| self.damage(error));
                    manifest = manifest.or(found.map(Box::new));
                }
                Err(error @ format::Error::Read(_)) => return Err(error.into()),
                // That it is damaged is known already.
                Err(_) => {}
            }
        }
        let is_joined = check.is_some();
        if let (Some(check), Some(dump), Some(manifest)) = (check, tables.dump, &manifest)
            && self.findings.count == 0
        {
            let report = check.finish(dump, manifest)?;
            for problem in report.contradictions {
                self.finding(Finding { path: "catalog".into(), offset: None, problem });
            }
            report.warnings.into_iter().for_each(|warning| self.monitor.warn(warning));
            for damage in &report.source.named {
                self.monitor.event(damage.clone().into());
            }
            source.append(report.source);
        }
        if self.findings.count == 0 {
            for (subject, problem) in manifest.iter().flat_map(|manifest| &manifest.databases).flat_map(broken_rows) {
                let damage = SourceDamage { subject, problem, ..SourceDamage::default() };
                self.monitor.event(damage.clone().into());
                source.push(damage);
            }
        }
        let mut closed = manifest.as_ref().and_then(|manifest| closed(manifest));
        if level >= Level::Closed && !is_joined {
            // There was no dump to prove it by.
            closed = closed.filter(|closed| !closed);
        }
        if let Some(unlock) = unlock.filter(|_| level == Level::Sums && self.input.is_seekable())
            && self.findings.count == 0
        {
            // The sums need no key; what the manifest says does.
            closed = self::closed(BundleReader::open(self.input.ranges().await?, unlock).await?.manifest());
        }
        let (id, signature) = end.unzip();
        let (signature, mut signed_by) = (signature.flatten(), None);
        // A damaged bundle is damaged, whatever it was expected to be.
        if self.findings.count == 0 {
            let expect = &self.options.expect;
            signed_by = expect.trusted.check(signature.as_deref(), stream.sums()?)?;
            expected(expect, id.as_deref(), &about.created)?;
            if let (Some(head), Some(id), Some(unlock)) = (&head, &id, unlock)
                && level == Level::Restore
                && !expect.is_empty()
            {
                trial = self.try_known(head, id, unlock, &mut source).await?;
            }
        }
        let mut tried = None;
        if let Some(trial) = trial {
            match &manifest {
                Some(manifest) if self.findings.count == 0 => {
                    let finished = trial.finish(manifest).await;
                    if let Some((outcome, differences)) = self.settle(finished, &mut source)? {
                        for problem in differences {
                            self.finding(Finding { path: "database".into(), offset: None, problem });
                        }
                        tried = Some(outcome);
                    }
                }
                // What is damaged is not tried.
                _ => drop(self.settle(trial.end().await, &mut source)?),
            }
        }
        let verdict = match (self.findings.count, closed) {
            (0, Some(false)) => Verdict::Incomplete,
            (0, _) if source.count > 0 => Verdict::Incomplete,
            (0, _) => Verdict::Sound,
            _ => Verdict::Damaged,
        };
        let (lost, lost_count) = self.losses.into_named(manifest.as_deref());
        Ok(Outcome {
            input: self.input.to_string(),
            level: level.name(),
            verdict,
            bundle: about.bundle,
            id: id.filter(|_| verdict != Verdict::Damaged),
            created: about.created,
            signed: signature.is_some(),
            signed_by: signed_by.filter(|_| verdict != Verdict::Damaged),
            bytes: stream.offset(),
            retried: self.input.faults(),
            reread: 0,
            closed,
            findings: self.findings.named,
            damages: self.findings.count,
            lost,
            lost_count,
            source: source.named,
            source_damages: source.count,
            trial: tried,
            contents: manifest.as_deref().map(Into::into),
        })
    }

    /// Loads what belongs to a dump, until something is wrong.
    async fn try_entries(
        &mut self,
        entries: &[(Entry, IndexLine)],
        trial: &mut Option<TrialRun<'_>>,
        source: &mut SourceDamages,
    ) -> Result<(), Error> {
        for (entry, _) in entries {
            let Some(run) = trial else { break };
            let loaded = run.entry(entry).await;
            if self.findings.count > 0 || self.settle(loaded, source)?.is_none() {
                // What it has made is taken away before the rest of the bundle is read.
                let ended = match trial.take() {
                    Some(run) => run.end().await,
                    None => Ok(()),
                };
                self.settle(ended, source)?;
            }
        }
        Ok(())
    }

    /// Begins the trial of a bundle that has come whole, with the expected `id`, and loads its dump: each entry as the catalog names
    /// it, which is bound to that id.
    async fn try_known(
        &mut self,
        head: &Head,
        id: &str,
        unlock: &Unlock,
        source: &mut SourceDamages,
    ) -> Result<Option<TrialRun<'a>>, Error> {
        let reader = BundleReader::open(self.input.ranges().await?, unlock).await?;
        let found = hex::encode(reader.trailer().id);
        if found != id {
            return Err(format::Error::WrongId { expected: id.to_owned(), found }.into());
        }
        reader.check_sums().await?;
        self.monitor.phase(Phase::Unpack);
        let begun = TrialRun::begin(&self.options.scratch, head, &self.options.limits, self.monitor).await;
        let Some(mut trial) = self.settle(begun, source)?.flatten() else { return Ok(None) };
        let loaded = self.load(&reader, &mut trial, source).await;
        if let Ok(true) = loaded {
            return Ok(Some(trial));
        }
        // What it has made is taken away before anything is read again.
        let ended = trial.end().await;
        loaded?;
        self.settle(ended, source)?;
        Ok(None)
    }

    /// Loads all that belongs to a dump; `false` where something is wrong with it.
    async fn load(
        &mut self,
        reader: &BundleReader<Box<dyn RangeReader>>,
        trial: &mut TrialRun<'_>,
        source: &mut SourceDamages,
    ) -> Result<bool, Error> {
        let limits = &self.options.limits;
        let spool = Spool::new(&limits.temp_dir, Budget::new(limits.max_memory).spool);
        let mut segments = reader.segments("database/", spool).await?;
        while let Some(entries) = segments.next().await? {
            for entry in &entries {
                let loaded = trial.entry(entry).await;
                if self.settle(loaded, source)?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What stopped a trial becomes part of the verdict, or an error; `None` where it was stopped.
    fn settle<T>(&mut self, step: Result<T, Stop>, source: &mut SourceDamages) -> Result<Option<T>, Error> {
        match step {
            Ok(done) => return Ok(Some(done)),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Damage(path, problem)) => self.finding(Finding { path, offset: None, problem }),
            Err(Stop::Source(damage)) => {
                self.monitor.event(damage.clone().into());
                source.push(damage);
            }
        }
        Ok(None)
    }

    /// Unlocks by the first slot; where that is damaged and the bundle can be read in any place, by the second.
    async fn unlock<R: Source>(&mut self, stream: &mut BundleStream<'_, R>, unlock: &Unlock) -> Result<(), Error> {
        match stream.unlock(unlock) {
            // A damaged slot may look like one of somebody else's: TRAILER knows its hash.
            Err(error) if self.input.is_seekable() => {
                match BundleReader::open(self.input.ranges().await?, unlock).await {
                    // The damage of the slot is found again at the end, by its hash.
                    Ok(reader) => stream.unlock_with(reader.key()),
                    Err(_) => return Err(error.into()),
                }
            }
            unlocked => unlocked?,
        }
        Ok(())
    }

    fn damage(&mut self, error: &format::Error) {
        self.losses.damage(error);
        let (path, offset, problem) = match error {
            format::Error::Damaged { entry, offset, what } => (entry.clone(), Some(*offset), what.clone()),
            format::Error::Torn { offset, what } => {
                ("the end".into(), Some(*offset), format!("it is torn: it ends {what}"))
            }
            error => ("the bundle".into(), None, error.to_string()),
        };
        self.finding(Finding { path, offset, problem });
    }

    fn finding(&mut self, finding: Finding) {
        // Whoever walks the file again meets what was met before.
        if self.findings.named.contains(&finding) {
            return;
        }
        self.findings.count += 1;
        if self.findings.named.len() < FINDINGS {
            self.findings.named.push(finding);
        }
    }
}

fn closed(manifest: &Manifest) -> Option<bool> {
    manifest.objects.as_ref().and_then(|objects| objects.closed)
}

/// What the head promised, and by which what came behind it was checked, must be what the manifest tells of.
fn contradiction(head: &Head, manifest: &Manifest) -> Option<&'static str> {
    let promised = head.databases.iter().map(|database| (&database.name, &database.folder, database.kind));
    let told = manifest.databases.iter().map(|database| (&database.name, &database.folder, database.kind));
    promised.ne(told).then_some("it names other databases than the head")
}

/// Refuses a bundle that is not the expected one; signatures are apart.
pub(crate) fn expected(expect: &Expectations, id: Option<&str>, created: &str) -> Result<(), Error> {
    if let Some(expected) = &expect.id
        && id != Some(expected)
    {
        let found = id.unwrap_or("unknown").to_owned();
        return Err(format::Error::WrongId { expected: expected.clone(), found }.into());
    }
    // A time that cannot be read proves nothing.
    if let Some(earliest) = expect.created_after
        && created.parse::<jiff::Timestamp>().map_or(true, |created| created < earliest)
    {
        return Err(Error::TooOld { created: created.to_owned(), expected: earliest.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_young_enough_is_refused() {
        let earliest = "2026-01-01T00:00:00Z".parse().unwrap();
        let expect = Expectations { created_after: Some(earliest), ..Expectations::default() };
        assert!(expected(&expect, None, "2026-01-01T00:00:00Z").is_ok());
        for created in ["2025-12-31T23:59:59Z", "tomorrow", ""] {
            assert!(matches!(expected(&expect, None, created), Err(Error::TooOld { .. })), "{created}");
        }
    }
}
