//! Formats text for messages: foreign text (of API servers, kubelets, libraries) as one line of bounded length, counts and
//! lists of names. Escaping is left to what writes the message.

/// The longest text that a message quotes, in characters.
const LEN_MAX: usize = 1000;
/// What rustls appends to errors.
const MANUAL: &str = ": https://docs.rs/rustls";

/// Joins lines, removes links to the manuals of libraries, and limits the length.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    while let Some(start) = line.find(MANUAL) {
        let end = line[start + 2..].find(' ').map_or(line.len(), |length| start + 2 + length);
        line.replace_range(start..end, "");
    }
    line.truncate(line.trim_end_matches([':', ' ']).len());
    if let Some((end, _)) = line.char_indices().nth(LEN_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A number with its noun: `1 node`, `2 nodes`.
pub(super) fn count(number: impl Into<i64>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Names, separated by commas; of many names only the first.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 10;
    let all: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = all.iter().take(SHOWN).map(|name| line(name)).collect();
    let text = shown.join(", ");
    if all.len() > SHOWN { format!("{text} and {} more", all.len() - SHOWN) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_line_of_bounded_length() {
        let tls = "IO error: peer closed connection without sending TLS close_notify: \
                   https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        assert_eq!(line(tls), "IO error: peer closed connection without sending TLS close_notify");
        assert_eq!(line(&format!("{tls} (again)")), format!("{} (again)", line(tls)));
        assert_eq!(line("two\n  lines\n"), "two lines");
        assert_eq!(line("pods \"x\" is forbidden: "), "pods \"x\" is forbidden");
        assert_eq!(line(r"C:\x"), r"C:\x", "escaped once, by what writes it");
        assert_eq!(line(&"ü".repeat(5000)).chars().count(), LEN_MAX + 1);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([count(0, "node"), count(1, "node"), count(2, "node")], ["0 nodes", "1 node", "2 nodes"]);
    }

    #[test]
    fn only_the_first_of_many_names_are_shown() {
        assert_eq!(names(["a", "b"]), "a, b");
        assert_eq!(names(["n"; 12]), format!("{} and 2 more", ["n"; 10].join(", ")));
    }
}
