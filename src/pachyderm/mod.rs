//! What only Pachyderm knows: here, which release a schema belongs to.

pub mod pipelines;

/// `max(id)` of `public.migrations`, and the release family it is the last of (Pachyderm, the `Apply(` chains of
/// `src/internal/clusterstate` at each 2.x tag).
const FAMILIES: &[(i64, &str)] = &[
    (21, "2.0.x"),
    (24, "2.1.x or 2.2.x"),
    (25, "2.3.x or 2.4.x"),
    (28, "2.5.0 to 2.5.3"),
    (29, "2.5.4 to 2.5.9"),
    (35, "2.6.x"),
    (39, "2.7.x"),
    (47, "2.8.x or 2.9.x"),
    (53, "2.10.x"),
    (59, "2.11.x"),
    (65, "2.12.x"),
];

/// Whether pachd of `version` (`2.11.6`) may have made a schema whose last migration is `max_id`; true where that cannot be
/// told.
#[must_use]
pub fn may_belong(version: &str, max_id: i64) -> bool {
    let Some((_, family)) = FAMILIES.iter().find(|(id, _)| *id == max_id) else { return true };
    let Some(version) = numbers(version) else { return true };
    let is_in = |part: &str| match part.split_once(" to ") {
        Some((first, last)) => numbers(first) <= Some(version) && Some(version) <= numbers(last),
        None => numbers(part).is_none_or(|part| part[..2] == version[..2]),
    };
    family.split(" or ").any(is_in)
}

/// Major, minor and patch, which is 0 where it is no number.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '+']);
    let mut next = || parts.next()?.parse().ok();
    Some([next()?, next()?, next().unwrap_or(0)])
}

/// The release family of a database whose last migration is `max_id`; in words where it is none that is known.
#[must_use]
pub fn release_family(max_id: i64) -> String {
    match FAMILIES.iter().find(|(id, _)| *id == max_id) {
        Some((_, family)) => (*family).to_owned(),
        None => format!("unknown (migration {max_id})"),
    }
}

/// Whether a release ends with this migration.
#[must_use]
pub fn is_known(max_id: i64) -> bool {
    FAMILIES.iter().any(|(id, _)| *id == max_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_belong_to_schemas() {
        for (version, id) in
            [("2.0.3", 21), ("2.1.0", 24), ("2.2.7", 24), ("2.5.4", 29), ("2.11.6", 59), ("2.12.0-rc.1", 65)]
        {
            assert!(may_belong(version, id), "{version} {id}");
        }
        for (version, id) in [("2.11.6", 53), ("2.5.4", 28), ("2.5.3", 29), ("2.1.0", 21), ("3.0.0", 21)] {
            assert!(!may_belong(version, id), "{version} {id}");
        }
        assert!(may_belong("nightly", 59) && may_belong("2.11.6", 60));
    }
}
