//! The live set of the dump against the catalog: a merge of two sorted streams.

use pacharc_format as format;
use pacharc_format::{CatalogLine, Key, Record, Sorted, State};

use super::damage::NAMED;

/// The most contradictions that are told.
const CONTRADICTIONS: usize = 20;

/// Joins the catalog, as it comes, with the live set.
pub(super) struct LiveJoin {
    live: Sorted,
    next: Option<Record>,
    group: Group,
    lacking: Lacking,
}

/// The objects of one chunk, which follow each other.
#[derive(Default)]
struct Group {
    chunk: Option<[u8; 32]>,
    /// One whose bytes are in the bundle.
    whole: Option<String>,
    /// Where those that are lacking begin.
    from: usize,
}

/// What is lacking.
#[derive(Default)]
pub(super) struct Lacking {
    /// The first of them.
    pub(super) objects: Vec<LackingObject>,
    pub(super) count: u64,
    /// How many of them have their bytes in the bundle, and a row that is wrong about them: such a bundle is closed.
    pub(super) misjudged: u64,
    /// Where catalog and dump say different things of an object.
    pub(super) contradictions: Vec<String>,
}

/// A live object that is not in the bundle as its key promises.
pub(super) struct LackingObject {
    pub(super) path: String,
    pub(super) chunk: Option<[u8; 32]>,
    pub(super) problem: String,
    /// The path of another object with the bytes of the same chunk.
    pub(super) healed_by: Option<String>,
}

impl LiveJoin {
    pub(super) fn new(mut live: Sorted) -> format::Result<Self> {
        let next = live.next().transpose()?;
        Ok(Self { live, next, group: Group::default(), lacking: Lacking::default() })
    }

    /// Takes the next line of the catalog.
    pub(super) fn line(&mut self, line: &CatalogLine) -> format::Result<()> {
        let path = &line.entry.path;
        while let Some((live, _)) = self.next.take_if(|(live, _)| live.as_slice() < path.as_bytes()) {
            self.absent(&live);
            self.next = self.live.next().transpose()?;
        }
        let row = self.next.take_if(|(live, _)| live == path.as_bytes());
        if row.is_some() {
            self.next = self.live.next().transpose()?;
        }
        let size = row.as_ref().and_then(|(_, size)| size.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
        let chunk = Key::from_path(path).and_then(|key| key.chunk()).map(|chunk| chunk.id);
        if chunk != self.group.chunk {
            self.end_group();
            self.group.chunk = chunk;
        }
        match (line.state, size) {
            (State::File | State::Foreign, None) => {}
            (State::Orphan, None) => {
                if !line.entry.rotten {
                    self.group.whole.get_or_insert_with(|| path.clone());
                }
            }
            (State::Live, Some(size)) => {
                self.group.whole.get_or_insert_with(|| path.clone());
                if size != line.entry.size {
                    let problem =
                        format!("its row says {size} bytes, and it has {} (its hash is right)", line.entry.size);
                    self.lack(path, problem);
                    self.lacking.misjudged += 1;
                }
            }
            (State::Missing, Some(_)) => self.lack(path, "the bucket had no such live object".to_owned()),
            (State::Rotten, Some(_)) => self.lack(path, "its bytes were not what its key promises".to_owned()),
            (state, row) => {
                let row = if row.is_some() { "live" } else { "not live" };
                self.contradict(format!("{path}: {row} in the dump, and {state:?} in the catalog"));
            }
        }
        Ok(())
    }

    /// The catalog has ended.
    pub(super) fn finish(mut self) -> format::Result<Lacking> {
        while let Some((live, _)) = self.next.take() {
            self.absent(&live);
            self.next = self.live.next().transpose()?;
        }
        self.end_group();
        Ok(self.lacking)
    }

    fn absent(&mut self, path: &[u8]) {
        self.contradict(format!("{}: live in the dump, and not in the catalog", String::from_utf8_lossy(path)));
    }

    fn contradict(&mut self, problem: String) {
        if self.lacking.contradictions.len() < CONTRADICTIONS {
            self.lacking.contradictions.push(problem);
        }
    }

    fn lack(&mut self, path: &str, problem: String) {
        self.lacking.count += 1;
        if self.lacking.objects.len() < NAMED {
            let chunk = self.group.chunk;
            self.lacking.objects.push(LackingObject { path: path.to_owned(), chunk, problem, healed_by: None });
        }
    }

    fn end_group(&mut self) {
        let whole = self.group.whole.take();
        for object in self.lacking.objects.iter_mut().skip(self.group.from) {
            object.healed_by = whole.clone().filter(|whole| *whole != object.path);
        }
        self.group.from = self.lacking.objects.len();
    }
}

#[cfg(test)]
mod tests {
    use pacharc_format::{ChunkKey, IndexLine, Spool};

    use super::*;

    fn path(id: u8, generation: u64) -> String {
        ChunkKey { id: [id; 32], generation }.key().to_path()
    }

    fn line(state: State, path: &str, size: u64) -> CatalogLine {
        let entry = IndexLine {
            path: path.to_owned(),
            size,
            hash: None,
            place: None,
            pieces: None,
            metadata: Default::default(),
            rotten: false,
        };
        CatalogLine { state, entry }
    }

    fn join(live: &[(String, u64)], catalog: &[CatalogLine]) -> Lacking {
        let mut spool = Spool::new(&std::env::temp_dir(), 1 << 20);
        live.iter().for_each(|(path, size)| spool.push(path.as_bytes(), &size.to_le_bytes()).unwrap());
        let mut join = LiveJoin::new(spool.sorted().unwrap()).unwrap();
        catalog.iter().for_each(|line| join.line(line).unwrap());
        join.finish().unwrap()
    }

    #[test]
    fn what_is_lacking_is_named_and_what_would_heal_it() {
        let live = [(path(1, 1), 5), (path(2, 1), 5), (path(2, 2), 5), (path(3, 1), 5)];
        let catalog = [
            line(State::File, "database/x", 1),
            line(State::Live, &path(1, 1), 5),
            line(State::Missing, &path(2, 1), 5),
            line(State::Rotten, &path(2, 2), 5),
            line(State::Orphan, &path(2, 3), 5),
            line(State::Live, &path(3, 1), 6),
            line(State::Foreign, "objects/other/x", 1),
        ];
        let lacking = join(&live, &catalog);
        assert_eq!(lacking.contradictions, [""; 0]);
        assert_eq!((lacking.count, lacking.misjudged), (3, 1));
        let found: Vec<_> = lacking.objects.iter().map(|o| (o.path.as_str(), o.healed_by.as_deref())).collect();
        let (healer, a, b, c) = (path(2, 3), path(2, 1), path(2, 2), path(3, 1));
        assert_eq!(found, [(&*a, Some(&*healer)), (&*b, Some(&*healer)), (&*c, None)]);
    }

    #[test]
    fn what_the_catalog_and_the_dump_tell_differently_is_a_contradiction() {
        let sound = |catalog: &[CatalogLine]| join(&[(path(1, 1), 5)], catalog).contradictions.is_empty();
        assert!(sound(&[line(State::Live, &path(1, 1), 5)]));
        assert!(!sound(&[]));
        assert!(!sound(&[line(State::Orphan, &path(1, 1), 5)]));
        assert!(!sound(&[line(State::Live, &path(1, 1), 5), line(State::Live, &path(2, 1), 5)]));
        assert!(!sound(&[line(State::Live, &path(1, 1), 5), line(State::Missing, &path(2, 1), 5)]));
        assert!(!sound(&[line(State::Object, &path(1, 1), 5)]));
    }
}
