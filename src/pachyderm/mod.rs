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
