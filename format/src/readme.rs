//! `README.txt`: how to recover the bundle with stock tools. A function of the format alone, so that it reveals nothing.

/// The text.
pub(crate) fn text() -> &'static str {
    include_str!("readme.txt")
}
