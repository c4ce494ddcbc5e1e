//! Names that a container chose, made safe to show: they can neither move the cursor nor end the line.

use std::io::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// Whether a terminal would act on a character, or not show it in a place of its own: control characters, and
/// those without a width (combining and joining ones, marks of direction).
fn is_unsafe(c: char) -> bool {
    c.width().is_none_or(|width| width == 0)
}

/// Escapes the unsafe characters in the JSON text that `out` has from `start` on. JSON has escaped the older control
/// characters itself; what is left of them can stand in strings only, where any character may be written as `\uXXXX`.
pub(super) fn escape_json(out: &mut Vec<u8>, start: usize) {
    let is_plain = |byte: &u8| byte.is_ascii() && *byte != 0x7f;
    if out[start..].iter().all(is_plain) {
        return;
    }
    let text = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    let mut units = [0; 2];
    for c in text.chars() {
        if c != '\n' && is_unsafe(c) {
            for unit in c.encode_utf16(&mut units) {
                // Writing to a vector cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

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

/// `text`, as [`write`] writes it: for lines of the log.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    write(text.as_bytes(), &mut line);
    line
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

    #[test]
    fn json_keeps_its_meaning_without_what_a_terminal_would_act_on() {
        let text = "/\u{9b}2J\u{202e}\u{7f}\u{e0001}ü";
        let mut out = b"{}\n".to_vec();
        let start = out.len();
        serde_json::to_writer(&mut out, text).unwrap();
        escape_json(&mut out, start);
        let json = std::str::from_utf8(&out[start..]).unwrap();
        assert_eq!(json, r#""/\u009b2J\u202e\u007f\udb40\udc01ü""#);
        assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
    }

    proptest! {
        #[test]
        fn no_bytes_lead_to_a_control_character(bytes: Vec<u8>) {
            prop_assert!(!sanitized(&bytes).chars().any(is_unsafe));
        }

        #[test]
        fn different_bytes_never_look_the_same(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, sanitized(&a) == sanitized(&b));
        }
    }
}
