//! JSON that others have written.

/// Whether it is an object, if it is JSON. Structures are read from arrays as well, their fields by position, and nothing
/// that engines or runtimes write means that.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_by_its_beginning() {
        assert!(is_object(b" \t\r\n{}"));
        assert!(["", "[{}]", "null", "\"{}\"", "\u{feff}{}"].iter().all(|json| !is_object(json.as_bytes())));
    }
}
