//! Escapes text from containers and other untrusted sources, so that it can neither control the terminal nor end the
//! line.

use std::io::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// Whether a character is unsafe to display: a terminal acts on it or does not show it in a cell of its own (control
/// characters, and characters without a width, such as combining ones, joiners and direction marks), or a reader may
/// take it for the end of a line.
fn is_unsafe(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}') || c.width().is_none_or(|width| width == 0)
}

/// Whether a text can be displayed as it is, with no more lines than it has.
#[cfg(test)]
pub(crate) fn is_safe(text: &str) -> bool {
    !text.chars().any(|c| c != '\n' && is_unsafe(c))
}

/// Whether every byte can be displayed as it is in every format, in one cell: printable ASCII without quotes and
/// backslashes. Nearly all names are.
#[expect(clippy::needless_bitwise_bool, reason = "without branches many bytes are compared at once")]
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    /// Bytes that processors compare at once.
    const AT_ONCE: usize = 16;
    let are_plain = |bytes: &[u8]| {
        bytes.iter().fold(true, |plain, byte| {
            plain & matches!(byte, b' '..=b'~') & (*byte != b'"') & (*byte != b'\\')
        })
    };
    let (chunks, rest) = bytes.as_chunks::<AT_ONCE>();
    // The last chunk overlaps the one before it, which is faster than comparing the remaining bytes one by one.
    let rest = bytes.last_chunk::<AT_ONCE>().map_or(rest, |last| last);
    chunks.iter().all(|chunk| are_plain(chunk)) && are_plain(rest)
}

/// Appends `bytes` as a JSON string, as serde_json and [`escape_json`] together write it, with U+FFFD for invalid
/// UTF-8. Returns whether all bytes are valid UTF-8.
pub(crate) fn write_json(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    out.push(b'"');
    let is_text = if is_plain(bytes) {
        out.extend_from_slice(bytes);
        true
    } else {
        write_json_escaped(bytes, out)
    };
    out.push(b'"');
    is_text
}

#[cold]
fn write_json_escaped(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let mut is_text = true;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(br#"\""#),
                '\\' => out.extend_from_slice(br"\\"),
                '\n' => out.extend_from_slice(br"\n"),
                '\t' => out.extend_from_slice(br"\t"),
                '\r' => out.extend_from_slice(br"\r"),
                '\u{8}' => out.extend_from_slice(br"\b"),
                '\u{c}' => out.extend_from_slice(br"\f"),
                _ if is_unsafe(c) => push_json_escape(c, out),
                _ => push_char(c, out),
            }
        }
        if !chunk.invalid().is_empty() {
            is_text = false;
            push_char(char::REPLACEMENT_CHARACTER, out);
        }
    }
    is_text
}

fn push_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends `\uXXXX`, twice for a character beyond 16 bits.
fn push_json_escape(c: char, out: &mut Vec<u8>) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a vector cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Escapes the unsafe characters in the JSON text from `start` on. serde_json has escaped the ASCII control
/// characters; the remaining unsafe ones occur only in strings, where `\uXXXX` is permitted for any character.
pub(crate) fn escape_json(out: &mut Vec<u8>, start: usize) {
    let is_plain = |byte: &u8| byte.is_ascii() && *byte != 0x7f;
    if out[start..].iter().all(is_plain) {
        return;
    }
    let text = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for c in text.chars() {
        if c != '\n' && is_unsafe(c) {
            push_json_escape(c, out);
        } else {
            push_char(c, out);
        }
    }
}

/// Escapes YAML that is written as JSON: like [`escape_json`], but YAML has another form for characters beyond 16
/// bits, and two characters that must be escaped.
pub(crate) fn escape_yaml(out: &mut Vec<u8>, start: usize) {
    let text = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for c in text.chars() {
        let is_refused = matches!(c, '\u{fffe}' | '\u{ffff}');
        if c == '\n' || !is_unsafe(c) && !is_refused {
            push_char(c, out);
        } else if c > '\u{ffff}' {
            // Writing to a vector cannot fail.
            let _ = write!(out, "\\U{:08x}", u32::from(c));
        } else {
            push_json_escape(c, out);
        }
    }
}

/// Appends `bytes` with everything escaped that a terminal would not show as itself, once, in a cell of its own.
///
/// Control characters become `\n`, `\t`, `\r` or `\xNN`, invalid UTF-8 bytes `\xNN`, characters without a width
/// (combining ones, joiners, direction marks) and line separators `\u{…}`, and backslashes are doubled, so that an
/// escape is distinguishable from text that looks like one.
pub(crate) fn write(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_char(c, out);
        }
        for byte in chunk.invalid() {
            push_hex(*byte, out);
        }
    }
}

/// `text` escaped by [`write`], for log lines.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    write(text.as_bytes(), &mut line);
    line
}

/// `text` escaped for a message on a terminal: unsafe characters are escaped, and lines after the first are indented,
/// so that they do not look like messages of their own. Safe text is unchanged.
pub(crate) fn message(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\n  "),
            c if is_unsafe(c) => write_char(c, &mut safe),
            c => safe.push(c),
        }
    }
    safe
}

fn write_char(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        ' '..='~' => out.push(c),
        _ if let Ok(byte @ 0..=0x7f) = u8::try_from(c) => push_hex(byte, out),
        _ if is_unsafe(c) => out.extend(c.escape_unicode()),
        _ => out.push(c),
    }
}

fn push_hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_cannot_act_on_a_terminal_or_forge_another_message() {
        let hostile = "no\ntracer: ready\u{1b}]0;x\u{7}\r\u{2028}\u{202e}";
        assert_eq!(message(hostile), "no\n  tracer: ready\\x1b]0;x\\x07\\r\\u{2028}\\u{202e}");
        assert_eq!(message(r"C:\x is \n fine: ü"), r"C:\x is \n fine: ü");
    }

    proptest! {
        #[test]
        fn safe_messages_are_unchanged(text in any::<String>()) {
            let once = message(&text.replace('\n', ""));
            prop_assert_eq!(message(&once), once);
        }
    }

    fn sanitized(bytes: &[u8]) -> String {
        let mut out = String::new();
        write(bytes, &mut out);
        out
    }

    #[test]
    fn unsafe_characters_are_escaped() {
        assert_eq!(sanitized(b"/etc/hosts"), "/etc/hosts");
        assert_eq!(sanitized(b"\x1b[2J\n\t\r\x07"), r"\x1b[2J\n\t\r\x07");
        assert_eq!(sanitized(b"a\xffb"), r"a\xffb");
        assert_eq!(sanitized("\u{9b}2J".as_bytes()), r"\u{9b}2J");
        assert_eq!(sanitized("a\u{202e}b\u{200b}c\u{301}".as_bytes()), r"a\u{202e}b\u{200b}c\u{301}");
        assert_eq!(sanitized("a\u{2028}b\u{2029}".as_bytes()), r"a\u{2028}b\u{2029}");
        assert_eq!(sanitized("日本ü".as_bytes()), "日本ü");
        assert_eq!(sanitized(br"\n"), r"\\n");
    }

    #[test]
    fn escaped_json_decodes_to_the_same_text() {
        let text = "/\u{9b}2J\u{202e}\u{7f}\u{e0001}ü";
        let mut out = b"{}\n".to_vec();
        let start = out.len();
        serde_json::to_writer(&mut out, text).unwrap();
        escape_json(&mut out, start);
        let json = std::str::from_utf8(&out[start..]).unwrap();
        assert_eq!(json, r#""/\u009b2J\u202e\u007f\udb40\udc01ü""#);
        assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
    }

    /// Arbitrary bytes, most of them text.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ -~]{0,40}".prop_map(String::into_bytes),
            any::<String>().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..3),
            prop::sample::select(vec![
                "\u{7f}",
                "\u{9b}",
                "\u{2028}",
                "\u{202e}",
                "\u{301}",
                "\u{e0001}",
                "\0",
                "\u{b}"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn write_json_agrees_with_serde_json_and_escape_json(bytes in any_bytes()) {
            let mut expected = b"before".to_vec();
            serde_json::to_writer(&mut expected, &String::from_utf8_lossy(&bytes)).unwrap();
            escape_json(&mut expected, 6);
            let mut out = b"before".to_vec();
            prop_assert_eq!(write_json(&bytes, &mut out), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(String::from_utf8(out), String::from_utf8(expected));
        }

        #[test]
        fn plain_bytes_are_displayed_unchanged(bytes in any_bytes()) {
            let unquoted = !bytes.contains(&b'"');
            prop_assert_eq!(is_plain(&bytes), unquoted && sanitized(&bytes).bytes().eq(bytes.iter().copied()) && bytes.is_ascii());
        }

        #[test]
        fn escaped_bytes_contain_no_unsafe_character(bytes: Vec<u8>) {
            prop_assert!(!sanitized(&bytes).chars().any(is_unsafe));
        }

        #[test]
        fn different_bytes_are_escaped_differently(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, sanitized(&a) == sanitized(&b));
        }
    }
}
