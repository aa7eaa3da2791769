//! Pachyderm's version: the tag of its image.

use super::Found;

/// The version that an image's tag says; `None` where the image is named by a digest alone, or by `latest`.
pub(super) fn of_image(image: Found<String>) -> Option<Found<String>> {
    let name = image.value.split('@').next().unwrap_or_default();
    // A colon before the last slash belongs to the registry's port.
    let (_, tag) = name.rsplit('/').next()?.rsplit_once(':')?;
    let version = tag.strip_prefix('v').unwrap_or(tag);
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| Found::new(version.to_owned(), image.found_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_found() {
        let version = |image: &str| of_image(Found::new(image.to_owned(), "")).map(|found| found.value);
        assert_eq!(version("pachyderm/pachd:2.11.6"), Some("2.11.6".into()));
        assert_eq!(version("registry:5000/pachyderm/pachd:v2.5.0-rc.1"), Some("2.5.0-rc.1".into()));
        assert_eq!(version("pachd:2.0.1@sha256:abcd"), Some("2.0.1".into()));
        for image in ["registry:5000/pachd", "pachd@sha256:abcd", "pachd:latest", "pachd", ""] {
            assert_eq!(version(image), None, "{image}");
        }
    }
}
