//! Checks of JSON from other programs.

/// Whether a JSON text is an object. serde also reads structures from arrays, with their fields by position, which no
/// engine or runtime means to write.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_starts_with_a_brace_is_an_object() {
        assert!(is_object(b" \t\r\n{}"));
        assert!(["", "[{}]", "null", "\"{}\"", "\u{feff}{}"].iter().all(|json| !is_object(json.as_bytes())));
    }
}
