//! Label selectors, with the syntax of kubectl's `-l` (kubernetes.io, "Labels and Selectors").

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Requirements on a pod's labels, all of which must be met. An empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    condition: Condition,
}

/// The condition on a label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// The label exists, with one of these values.
    In(BTreeSet<String>),
    /// The label does not exist, or has another value.
    NotIn(BTreeSet<String>),
    /// The label exists.
    Exists,
    /// The label does not exist.
    Absent,
    /// The label is a larger number.
    Above(i64),
    /// The label is a smaller number.
    Below(i64),
}

/// Why a text is not a label selector. Columns count characters, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectorError {
    /// Something else was expected at this position.
    #[error("{selector:?}: expected {expected} at column {column}, found {found:?}")]
    Unexpected {
        /// The whole selector.
        selector: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
        /// Where it starts.
        column: usize,
    },
    /// The selector ends too early.
    #[error("{selector:?}: expected {expected} at the end")]
    Incomplete {
        /// The whole selector.
        selector: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A part of a requirement breaks the rules of Kubernetes.
    #[error("{selector:?}: invalid {part} {text:?} at column {column}: {problem}")]
    Invalid {
        /// The whole selector.
        selector: String,
        /// `key`, `prefix`, `name` or `value`.
        part: &'static str,
        /// The part.
        text: String,
        /// Where it starts.
        column: usize,
        /// The rule that it breaks.
        problem: NameProblem,
    },
}

/// A rule of Kubernetes for keys and values of labels that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameProblem {
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// It has more characters than this.
    #[error("it is longer than {0} characters")]
    TooLong(usize),
    /// It contains this character.
    #[error("{0:?} is not permitted; use letters, digits, -, _ and .")]
    NameCharacter(char),
    /// Its first or last character is punctuation.
    #[error("it must begin and end with a letter or digit")]
    NameEnds,
    /// It contains this character, in a prefix.
    #[error("{0:?} is not permitted; use lower-case letters, digits, - and .")]
    PrefixCharacter(char),
    /// The first or last character of one of its parts is punctuation, in a prefix.
    #[error("each part must begin and end with a lower-case letter or digit")]
    PrefixEnds,
}
impl LabelSelector {
    /// Parses the value of one `-l`.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { text, at: 0 }.selector().map(Self)
    }

    /// Parses the values of several `-l`, all of which apply.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Self, SelectorError> {
        let parsed: Vec<Self> = texts.iter().map(|text| Self::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self(parsed.into_iter().flat_map(|selector| selector.0).collect()))
    }

    /// Whether it selects everything.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects a pod with these labels.
    #[must_use]
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.condition.holds(labels.get(&requirement.key)))
    }
}

impl Condition {
    fn holds(&self, value: Option<&String>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Formats a selector with the syntax that [`LabelSelector::parse`] accepts.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = |values: &BTreeSet<String>| {
            let list: Vec<&str> = values.iter().map(String::as_str).collect();
            (list.len() != 1, list.join(","))
        };
        match &self.condition {
            Condition::In(set) => match values(set) {
                (true, list) => write!(f, "{key} in ({list})"),
                (false, value) => write!(f, "{key}={value}"),
            },
            Condition::NotIn(set) => match values(set) {
                (true, list) => write!(f, "{key} notin ({list})"),
                (false, value) => write!(f, "{key}!={value}"),
            },
            Condition::Exists => write!(f, "{key}"),
            Condition::Absent => write!(f, "!{key}"),
            Condition::Above(bound) => write!(f, "{key}>{bound}"),
            Condition::Below(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// Symbols, with those that begin with another one before it.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];

const fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ',')
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// A symbol or a word; empty at the end of the text. Whether a word is an operator depends on its position: `in` may
/// be a label too.
#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    /// Position in the text, in bytes.
    at: usize,
}

impl Token<'_> {
    fn is_word(self) -> bool {
        !self.text.is_empty() && !self.text.starts_with(is_symbol)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Position in the text, in bytes.
    at: usize,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        if self.peek().text.is_empty() {
            return Ok(requirements);
        }
        loop {
            requirements.push(self.requirement()?);
            let token = self.next();
            match token.text {
                "" => return Ok(requirements),
                "," => {}
                _ => return Err(self.expected("a comma", token)),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let is_negated = self.take("!");
        let token = self.next();
        if !token.is_word() {
            return Err(self.expected("a label key", token));
        }
        self.check_key(token)?;
        Ok(Requirement { key: token.text.to_owned(), condition: self.condition(is_negated)? })
    }

    fn condition(&mut self, is_negated: bool) -> Result<Condition, SelectorError> {
        let operator = self.peek();
        if is_negated {
            return Ok(Condition::Absent);
        }
        if matches!(operator.text, "" | ",") {
            return Ok(Condition::Exists);
        }
        self.next();
        Ok(match operator.text {
            "=" | "==" => Condition::In(BTreeSet::from([self.value()?])),
            "!=" => Condition::NotIn(BTreeSet::from([self.value()?])),
            "in" => Condition::In(self.values()?),
            "notin" => Condition::NotIn(self.values()?),
            ">" => Condition::Above(self.number()?),
            "<" => Condition::Below(self.number()?),
            _ => return Err(self.expected("an operator or a comma", operator)),
        })
    }

    /// Parses a value, which is empty if the text ends or a comma follows.
    fn value(&mut self) -> Result<String, SelectorError> {
        let token = self.peek();
        if matches!(token.text, "" | ",") {
            return Ok(String::new());
        }
        self.next();
        self.word(token)
    }

    /// Parses values in parentheses, which may be empty: `(a,,b)`, `()`.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let token = self.next();
        if token.text != "(" {
            return Err(self.expected("\"(\"", token));
        }
        let mut values = BTreeSet::new();
        loop {
            let token = self.peek();
            values.insert(if matches!(token.text, "," | ")") {
                String::new()
            } else {
                self.next();
                self.word(token)?
            });
            let token = self.next();
            match token.text {
                "," => {}
                ")" => return Ok(values),
                _ => return Err(self.expected("a comma or \")\"", token)),
            }
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let token = self.peek();
        self.value()?.parse().map_err(|_| self.expected("an integer", token))
    }

    fn word(&self, token: Token<'_>) -> Result<String, SelectorError> {
        if !token.is_word() {
            return Err(self.expected("a value", token));
        }
        self.check("value", token, name_problem(token.text))?;
        Ok(token.text.to_owned())
    }

    /// Checks a key: a name, optionally preceded by a domain and a slash.
    fn check_key(&self, key: Token<'_>) -> Result<(), SelectorError> {
        let Some((prefix, name)) = key.text.split_once('/') else {
            return self.check("key", key, name_problem(key.text));
        };
        self.check("prefix", Token { text: prefix, at: key.at }, prefix_problem(prefix))?;
        self.check("name", Token { text: name, at: key.at + prefix.len() + 1 }, name_problem(name))
    }

    fn check(
        &self,
        part: &'static str,
        token: Token<'_>,
        problem: Option<NameProblem>,
    ) -> Result<(), SelectorError> {
        let Some(problem) = problem else { return Ok(()) };
        Err(SelectorError::Invalid {
            selector: self.text.to_owned(),
            part,
            text: token.text.to_owned(),
            column: self.column(token),
            problem,
        })
    }

    fn expected(&self, expected: &'static str, found: Token<'_>) -> SelectorError {
        let selector = self.text.to_owned();
        match found.text {
            "" => SelectorError::Incomplete { selector, expected },
            text => SelectorError::Unexpected {
                selector,
                expected,
                found: text.to_owned(),
                column: self.column(found),
            },
        }
    }

    /// Column of a token: characters, counted from 1.
    fn column(&self, token: Token<'_>) -> usize {
        self.text.get(..token.at).map_or(0, |before| before.chars().count()) + 1
    }

    fn take(&mut self, symbol: &str) -> bool {
        let is_next = self.peek().text == symbol;
        if is_next {
            self.next();
        }
        is_next
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at = token.at + token.text.len();
        token
    }

    fn peek(&self) -> Token<'a> {
        let rest = self.text[self.at..].trim_start_matches(is_blank);
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let word = || rest.find(|c| is_symbol(c) || is_blank(c)).unwrap_or(rest.len());
        let len = symbol.map_or_else(word, |symbol| symbol.len());
        Token { text: &rest[..len], at: self.text.len() - rest.len() }
    }
}

/// Longest name or value.
const NAME_MAX: usize = 63;
/// Longest prefix, which is a DNS subdomain (RFC 1123).
const PREFIX_MAX: usize = 253;

/// The rule that a name, or a value that is not empty, breaks.
fn name_problem(name: &str) -> Option<NameProblem> {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let is_allowed = |c: char| is_alphanumeric(c) || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        Some(NameProblem::Empty)
    } else if name.len() > NAME_MAX {
        Some(NameProblem::TooLong(NAME_MAX))
    } else if let Some(c) = name.chars().find(|c| !is_allowed(*c)) {
        Some(NameProblem::NameCharacter(c))
    } else if !name.starts_with(is_alphanumeric) || !name.ends_with(is_alphanumeric) {
        Some(NameProblem::NameEnds)
    } else {
        None
    }
}

/// The rule that a prefix breaks.
fn prefix_problem(prefix: &str) -> Option<NameProblem> {
    let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if prefix.is_empty() {
        Some(NameProblem::Empty)
    } else if prefix.len() > PREFIX_MAX {
        Some(NameProblem::TooLong(PREFIX_MAX))
    } else if let Some(c) = prefix.chars().find(|c| !is_lower(*c) && !matches!(c, '-' | '.')) {
        Some(NameProblem::PrefixCharacter(c))
    } else if !prefix.split('.').all(|part| part.starts_with(is_lower) && part.ends_with(is_lower)) {
        Some(NameProblem::PrefixEnds)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    fn error(selector: &str) -> String {
        let error = LabelSelector::parse(selector).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{selector:?}: ")), "{error}");
        error
    }

    #[test]
    fn equality_selects_the_value() {
        for selector in ["a=b", "a==b", " a =\tb ", "a in (b)", "a in(b)"] {
            assert!(selects(selector, &[("a", "b"), ("x", "y")]), "{selector}");
            assert!(!selects(selector, &[("a", "c")]), "{selector}");
            assert!(!selects(selector, &[]), "{selector}");
        }
    }

    #[test]
    fn inequality_selects_pods_without_the_label() {
        for selector in ["a!=b", "a notin (b)", "a != b", "a notin (x,b)"] {
            assert!(!selects(selector, &[("a", "b")]), "{selector}");
            assert!(selects(selector, &[("a", "c")]), "{selector}");
            assert!(selects(selector, &[]), "{selector}");
        }
    }

    #[test]
    fn key_alone_selects_pods_with_the_label() {
        assert!(selects("a", &[("a", "")]) && !selects("a", &[("b", "a")]));
        assert!(selects("!a", &[("b", "a")]) && !selects(" ! a ", &[("a", "")]));
    }

    #[test]
    fn empty_value_is_a_value() {
        for selector in ["a=", "a==", "a= ,a", "a in ()", "a in (,)", "a in (b,)", "a in (,b)", "a in (b,,c)"]
        {
            assert!(selects(selector, &[("a", "")]), "{selector}");
            assert!(!selects(selector, &[]), "{selector}");
        }
        assert!(!selects("a!=", &[("a", "")]) && selects("a!=", &[("a", "b")]));
        assert!(!selects("a notin ()", &[("a", "")]) && selects("a notin ()", &[]));
    }

    #[test]
    fn requirements_separated_by_commas_must_all_be_met() {
        let selector = "a=b,c!=d , e in ( f ,g ),!h,i";
        assert!(selects(selector, &[("a", "b"), ("e", "g"), ("i", "x")]));
        assert!(!selects(selector, &[("a", "b"), ("e", "g")]));
        assert!(!selects(selector, &[("a", "b"), ("c", "d"), ("e", "g"), ("i", "")]));
        assert!(!selects(selector, &[("a", "b"), ("e", "g"), ("h", ""), ("i", "")]));
        assert!(!selects("a=b,a=c", &[("a", "b")]));
    }

    #[test]
    fn several_selectors_must_all_match() {
        let all = LabelSelector::parse_all(&["a=b".into(), String::new(), "!c".into()]).unwrap();
        assert_eq!(all, LabelSelector::parse("a=b,!c").unwrap());
        assert!(LabelSelector::parse_all(&["a=b".into(), "!".into()]).is_err());
        assert!(LabelSelector::parse_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn comparison_operators_compare_numbers() {
        assert!(selects("a>1", &[("a", "2")]) && !selects("a>1", &[("a", "1")]));
        assert!(selects("a < 10", &[("a", "9")]) && !selects("a<10", &[("a", "10")]));
        assert!(!selects("a>1", &[("a", "x")]) && !selects("a<1", &[]));
        assert!(error("a<b").contains("expected an integer") && error("a>").contains("expected an integer"));
    }

    #[test]
    fn operator_words_may_be_labels() {
        assert!(selects("in in (in,notin)", &[("in", "notin")]));
        assert!(selects("notin=in,in", &[("in", ""), ("notin", "in")]));
        assert!(selects("!notin", &[("in", "")]));
    }

    #[test]
    fn empty_selector_selects_everything() {
        for selector in ["", "  ", "\t\n"] {
            assert!(LabelSelector::parse(selector).unwrap().is_empty());
            assert!(selects(selector, &[]));
        }
    }

    #[test]
    fn keys_may_have_a_prefix() {
        let long = format!("{}.example.com/{}", ["a"; 120].join("."), "n".repeat(63));
        for key in ["example.com/name", "a/b", "1.2-3.x/A_b.C-9", "x", "9", &long] {
            assert!(selects(key, &[(key, "v")]), "{key}");
        }
    }

    #[test]
    fn invalid_key_is_an_error_with_its_column() {
        let long = format!("{}/x", ["a"; 128].join("."));
        for (selector, piece, place) in [
            ("a=b,-c", r#"key "-c""#, 5),
            ("a=b, c_", r#"key "c_""#, 6),
            ("ü|=b", r#"key "ü|""#, 1),
            ("ab/c/d=e", r#"name "c/d""#, 4),
            ("ab/", r#"name """#, 4),
            ("/x", r#"prefix """#, 1),
            ("Example.com/x", r#"prefix "Example.com""#, 1),
            ("a..b/x", r#"prefix "a..b""#, 1),
            ("a.-b/x", r#"prefix "a.-b""#, 1),
            ("a_b/x", r#"prefix "a_b""#, 1),
            (&long, r#"prefix "a.a."#, 1),
            (&format!("a/{}", "x".repeat(64)), r#"name "xxx"#, 3),
            (&"x".repeat(64), r#"key "xxx"#, 1),
        ] {
            let error = error(selector);
            assert!(error.contains(piece), "{error}");
            assert!(error.contains(&format!(" at column {place}: ")), "{error}");
        }
    }

    #[test]
    fn invalid_value_is_an_error_with_its_column() {
        for (selector, piece, place) in [
            ("a=-b", r#"value "-b""#, 3),
            ("ab in (c, d.)", r#"value "d.""#, 11),
            ("a=b/c", r#"value "b/c""#, 3),
            ("ab!=ö", r#"value "ö""#, 5),
            (&format!("a={}", "x".repeat(64)), r#"value "xxx"#, 3),
        ] {
            let error = error(selector);
            assert!(error.contains(piece), "{error}");
            assert!(error.contains(&format!(" at column {place}: ")), "{error}");
        }
        assert!(LabelSelector::parse(&format!("a={}", "x".repeat(63))).is_ok());
    }

    #[test]
    fn unexpected_token_is_an_error_with_its_column() {
        for (selector, expected) in [
            ("a=b c", r#"expected a comma at column 5, found "c""#),
            ("a b", r#"expected an operator or a comma at column 3, found "b""#),
            ("a==b==c", r#"expected a comma at column 5, found "==""#),
            ("a===b", r#"expected a value at column 4, found "=""#),
            ("a=(b)", r#"expected a value at column 3, found "(""#),
            ("!a=b", r#"expected a comma at column 3, found "=""#),
            ("!a in (b)", r#"expected a comma at column 4, found "in""#),
            ("!!a", r#"expected a label key at column 2, found "!""#),
            ("a! =b", r#"expected an operator or a comma at column 2, found "!""#),
            ("a in b", r#"expected "(" at column 6, found "b""#),
            ("a in (b c)", r#"expected a comma or ")" at column 9, found "c""#),
            ("a in (b=c)", r#"expected a comma or ")" at column 8, found "=""#),
            ("a in (!b)", r#"expected a value at column 7, found "!""#),
            ("a in (b))", r#"expected a comma at column 9, found ")""#),
            (",a", r#"expected a label key at column 1, found ",""#),
            ("a,,b", r#"expected a label key at column 3, found ",""#),
            ("=b", r#"expected a label key at column 1, found "=""#),
            ("a,", "expected a label key at the end"),
            ("!", "expected a label key at the end"),
            ("a in (b,", "expected a value at the end"),
            ("a in (b", r#"expected a comma or ")" at the end"#),
            ("a notin", r#"expected "(" at the end"#),
        ] {
            assert_eq!(error(selector), format!("{selector:?}: {expected}"));
        }
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        const WORD: &str = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
        const PREFIX: &str = "([a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?(\\.[a-z]{1,3}){0,2}/)?";
        let values = || prop::collection::btree_set(prop_oneof![Just(String::new()), WORD], 1..4);
        let condition = prop_oneof![
            values().prop_map(Condition::In),
            values().prop_map(Condition::NotIn),
            Just(Condition::Exists),
            Just(Condition::Absent),
            (0..=i64::MAX).prop_map(Condition::Above),
            (0..=i64::MAX).prop_map(Condition::Below),
        ];
        let key = (PREFIX, prop_oneof![4 => WORD, 1 => "in|notin"]).prop_map(|(prefix, name)| prefix + &name);
        (key, condition).prop_map(|(key, condition)| Requirement { key, condition })
    }

    proptest! {
        #[test]
        fn formatted_selector_is_parsed_back(requirements in prop::collection::vec(requirement(), 0..5)) {
            let selector = LabelSelector(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn parsed_selector_is_formatted_equivalently(text in "[ab/.=!<>(), -]{0,12}|[a ](=|!=| in| notin) ?[(,ab]{0,3}[),]{0,2}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }

        #[test]
        fn errors_on_arbitrary_text_have_no_control_characters(text: String) {
            if let Err(error) = LabelSelector::parse(&text) {
                prop_assert!(!error.to_string().chars().any(char::is_control), "{}", error);
            }
        }
    }
}
