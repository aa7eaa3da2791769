//! Which objects and tables a comparison looks at. The choice depends on the seed and the name alone: whoever has both gets
//! the same one, in whatever order and however often things are met.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// This share, from 0 to 1.
    Share(f64),
    /// About so many objects, and tables in proportion.
    Count(u64),
    /// As many objects as can be read in this time, from a place on that the seed chooses; no tables.
    Time(Duration),
    /// The part of this number, from 1, of so many: together they are everything.
    Part(u64, u64),
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || "write 5%, a number of objects (1000), a time (30s, 2h), or a part of all (3/30)".to_owned();
        if let Some(percent) = text.strip_suffix('%') {
            let share = percent.trim().parse::<f64>().map_err(|_| problem())? / 100.0;
            return (share > 0.0 && share <= 1.0).then_some(Self::Share(share)).ok_or_else(problem);
        }
        if let Some((part, of)) = text.split_once('/') {
            let (part, of) = (part.parse().map_err(|_| problem())?, of.parse().map_err(|_| problem())?);
            return (1 <= part && part <= of).then_some(Self::Part(part, of)).ok_or_else(problem);
        }
        if let Ok(count) = text.parse::<u64>() {
            return (count > 0).then_some(Self::Count(count)).ok_or_else(problem);
        }
        let time = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        time.filter(|time| !time.is_zero()).map(Self::Time).ok_or_else(problem)
    }
}

/// As it is typed.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{}%", share * 100.0),
            Self::Count(count) => write!(f, "{count}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs_f64()),
            Self::Part(part, of) => write!(f, "{part}/{of}"),
        }
    }
}

/// A sample of a bundle with so many objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    sample: Option<Sample>,
    seed: u64,
    objects: u64,
}

impl Choice {
    pub(super) fn new(sample: Option<Sample>, seed: u64, objects: u64) -> Self {
        Self { sample, seed, objects }
    }

    /// Whether the thing of this name is compared.
    pub(super) fn takes(&self, name: &str) -> bool {
        match self.sample {
            None | Some(Sample::Time(_)) => true,
            Some(Sample::Share(share)) => self.place(name) < share,
            #[expect(clippy::cast_precision_loss, reason = "a share of all need not be more precise")]
            Some(Sample::Count(count)) => self.place(name) < count as f64 / self.objects.max(1) as f64,
            Some(Sample::Part(part, of)) => self.number(name) % of == part - 1,
        }
    }

    /// Where to begin, of paths that are spread evenly: at one of the chunks, whose keys are hashes.
    pub(super) fn begin(&self) -> Option<String> {
        matches!(self.sample, Some(Sample::Time(_))).then(|| format!("objects/chunk/{:016x}", self.number("begin")))
    }

    /// Between 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "a share of all need not be more precise")]
    fn place(&self, name: &str) -> f64 {
        self.number(name) as f64 / u64::MAX as f64
    }

    fn number(&self, name: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(name.as_bytes());
        let bytes = hasher.finalize();
        bytes.as_bytes().iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(sample: &str, seed: u64) -> Vec<usize> {
        let choice = Choice::new(Some(sample.parse().unwrap()), seed, 10_000);
        (0..10_000).filter(|number| choice.takes(&format!("objects/{number}"))).collect()
    }

    #[test]
    fn what_is_typed() {
        for text in ["5%", "0.5%", "100%", "1000", "3/30", "1/1"] {
            assert_eq!(text.parse::<Sample>().unwrap().to_string(), text);
        }
        assert_eq!("2m".parse::<Sample>().unwrap(), Sample::Time(Duration::from_secs(120)));
        for text in ["", "0", "0%", "101%", "0/3", "4/3", "-5", "x", "5 %%", "0s", "-1s"] {
            assert!(text.parse::<Sample>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same_and_about_as_many_as_asked() {
        assert_eq!(chosen("5%", 7), chosen("5%", 7));
        assert_ne!(chosen("5%", 7), chosen("5%", 8));
        for (sample, count) in [("5%", 500_usize), ("300", 300), ("1/30", 333), ("100%", 10_000)] {
            let found = chosen(sample, 3).len();
            assert!(found.abs_diff(count) <= count / 5, "{sample}: {found}");
        }
    }

    #[test]
    fn the_parts_together_are_everything_and_nothing_twice() {
        let mut all: Vec<usize> = (1..=30).flat_map(|part| chosen(&format!("{part}/30"), 0)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10_000).collect::<Vec<_>>());
    }
}
