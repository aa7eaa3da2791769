//! `README.txt`: how to recover the bundle with stock tools. A function of the format alone, so that it reveals nothing.

/// The text.
pub(crate) fn text() -> &'static str {
    include_str!("readme.txt")
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_names_the_stock_tools() {
        let text = super::text();
        assert!(["tar", "age", "zstd", "b3sum"].iter().all(|tool| text.contains(tool)), "{text}");
    }
}
