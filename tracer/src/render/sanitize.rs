//! Names that a container chose, made safe to show: they can neither move the cursor nor end the line.

use unicode_width::UnicodeWidthChar as _;

/// Appends `bytes` with everything escaped that a terminal would not show as itself, once and in its place.
///
/// Control characters become `\n`, `\t`, `\r` or `\xNN`, bytes that are not UTF-8 `\xNN`, characters without a
/// width of their own (combining and joining ones, marks of direction) `\u{…}`, and the backslash is doubled,
/// so that an escape is told from the text that looks like one.
pub(super) fn write(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_char(c, out);
        }
        for byte in chunk.invalid() {
            push_hex(*byte, out);
        }
    }
}

fn write_char(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        ' '..='~' => out.push(c),
        _ if let Ok(byte @ 0..=0x7f) = u8::try_from(c) => push_hex(byte, out),
        _ if c.width().is_none_or(|width| width == 0) => out.extend(c.escape_unicode()),
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

    fn sanitized(bytes: &[u8]) -> String {
        let mut out = String::new();
        write(bytes, &mut out);
        out
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(sanitized(b"/etc/hosts"), "/etc/hosts");
        assert_eq!(sanitized(b"\x1b[2J\n\t\r\x07"), r"\x1b[2J\n\t\r\x07");
        assert_eq!(sanitized(b"a\xffb"), r"a\xffb");
        assert_eq!(sanitized("\u{9b}2J".as_bytes()), r"\u{9b}2J");
        assert_eq!(sanitized("a\u{202e}b\u{200b}c\u{301}".as_bytes()), r"a\u{202e}b\u{200b}c\u{301}");
        assert_eq!(sanitized("日本ü".as_bytes()), "日本ü");
        assert_eq!(sanitized(br"\n"), r"\\n");
    }

    proptest! {
        #[test]
        fn no_bytes_lead_to_a_control_character(bytes: Vec<u8>) {
            prop_assert!(!sanitized(&bytes).chars().any(|c| c.width().is_none_or(|width| width == 0)));
        }

        #[test]
        fn different_bytes_never_look_the_same(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, sanitized(&a) == sanitized(&b));
        }
    }
}
