//! Values as users write them: sizes, databases, ages, ids.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use crate::restore::Rename;

/// Digits and a unit: `K`, `M`, `G`, `T`, alone or with `iB`, are powers of 1024; with `B`, of 1000.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a size is a number with a unit, such as 256MiB".to_owned())?;
    let unit = unit.trim().to_ascii_lowercase();
    let power = |letter: &str| "kmgt".find(letter).and_then(|at| u32::try_from(at + 1).ok());
    let factor = match unit.strip_suffix("ib").or(unit.strip_suffix('b')) {
        _ if unit.is_empty() || unit == "b" => Some(1),
        Some(letter) if letter.len() == 1 => {
            let base: u64 = if unit.ends_with("ib") { 1024 } else { 1000 };
            power(letter).map(|power| base.pow(power))
        }
        None if unit.len() == 1 => power(&unit).map(|power| 1024_u64.pow(power)),
        _ => None,
    };
    let factor = factor.ok_or_else(|| format!("unknown unit `{unit}`; there are K, M, G and T"))?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// For how long: `90s`, `5m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let problem = || "write a number with a unit, such as 90s, 5m or 2h".to_owned();
    let span: Span = text.parse().map_err(|_| problem())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| problem())?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero()).ok_or_else(problem)
}

/// For `--lease-duration`: Leases count whole seconds.
pub(super) fn lease_duration(text: &str) -> Result<Duration, String> {
    let whole = |duration: &Duration| duration.subsec_nanos() == 0;
    duration(text).ok().filter(whole).ok_or_else(|| "write whole seconds, such as 60s".to_owned())
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Less does not hold the segments that are sealed at a time.
const LEAST_MEMORY: u64 = 64 << 20;

/// For `--max-memory`.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < LEAST_MEMORY => Err("at least 64MiB are needed".to_owned()),
        bytes => Ok(bytes),
    }
}

/// How many things may be done at a time.
const JOBS: RangeInclusive<usize> = 1..=256;

/// For `--jobs`.
pub(super) fn jobs(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| JOBS.contains(number));
    number.ok_or_else(|| format!("a number from {} to {}", JOBS.start(), JOBS.end()))
}

/// A name that is not empty.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The longest name that PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
const DATABASE_NAME_LIMIT: usize = 63;

/// `NAME` or `BUNDLED=TARGET`.
pub(super) fn rename(text: &str) -> Result<Rename, String> {
    let (bundled, target) = text.split_once('=').unwrap_or((text, text));
    if bundled.is_empty() || target.is_empty() {
        return Err("write NAME, or BUNDLED=TARGET".to_owned());
    }
    // Longer ones are cut by the server without an error, and two of them may become one.
    if target.len() > DATABASE_NAME_LIMIT {
        return Err(format!("a database's name has at most {DATABASE_NAME_LIMIT} bytes"));
    }
    Ok(Rename { bundled: bundled.to_owned(), target: target.to_owned() })
}

/// 64 hex digits.
pub(super) fn bundle_id(text: &str) -> Result<String, String> {
    let id = text.to_ascii_lowercase();
    if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err("an id has 64 hex digits; `pacharc inspect` prints it".to_owned())
    }
}

/// An age before now (`7d`, `36h`), a day (from its beginning, UTC) or a point in time (RFC 3339): the earliest time that is
/// young enough.
pub(super) fn not_older_than(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let problem = || {
        "write an age such as 7d or 36h, a day such as 2025-01-31, or a time such as 2025-01-31T09:30:00Z".to_owned()
    };
    // A time without its zone could be meant otherwise.
    if let Some(day) = text.parse::<Date>().ok().filter(|day| day.to_string() == text) {
        return day.to_zoned(TimeZone::UTC).map(|day| day.timestamp()).map_err(|_| problem());
    }
    let span: Span = text.parse().map_err(|_| problem())?;
    let age = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| problem())?;
    if age < SignedDuration::ZERO {
        return Err(problem());
    }
    Timestamp::now().checked_sub(age).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let right = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1k", 1024),
            ("128M", 128 << 20),
            ("128 MiB", 128 << 20),
            ("1GiB", 1 << 30),
            ("1GB", 1_000_000_000),
            ("2t", 2 << 40),
        ];
        for (text, bytes) in right {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1X", "1MMiB", "1iB", "99999999T", "20000000000000000000"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(memory("63M").is_err());
        assert_eq!(memory("64M"), Ok(64 << 20));
    }

    #[test]
    fn renames() {
        let rename = |text| rename(text).map(|r| (r.bundled, r.target));
        assert_eq!(rename("a"), Ok(("a".into(), "a".into())));
        assert_eq!(rename("a=b=c"), Ok(("a".into(), "b=c".into())));
        let (long_target, long) = (format!("a={}", "b".repeat(64)), "a".repeat(64));
        for text in ["", "=b", "a=", &long_target, &long] {
            assert!(rename(text).is_err(), "{text}");
        }
        assert!(rename(&format!("a={}", "b".repeat(63))).is_ok());
    }

    #[test]
    fn ages_and_times() {
        let time = not_older_than("2025-01-31T00:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2025-01-31T00:00:00Z");
        assert_eq!(not_older_than("2025-01-31"), Ok(time));
        assert!(not_older_than("2025-01-31T00:00:00").is_err(), "in which zone?");
        let ago = Timestamp::now().duration_since(not_older_than("7d").unwrap());
        assert!((ago - SignedDuration::from_hours(7 * 24)).abs() < SignedDuration::from_secs(60));
        for text in ["", "soon", "-1d", "7"] {
            assert!(not_older_than(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        let cases = [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400)];
        for (text, seconds) in cases {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "0s", "-1m", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(lease_duration("1500ms").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn ids() {
        assert_eq!(bundle_id(&"AB".repeat(32)), Ok("ab".repeat(32)));
        assert!(bundle_id(&"ab".repeat(31)).is_err());
        assert!(bundle_id(&"xy".repeat(32)).is_err());
    }
}
