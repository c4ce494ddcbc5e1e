//! Label selectors, as kubectl's `-l` has them (kubernetes.io, "Labels and Selectors").

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What is asked of a pod's labels: all of it. Empty, it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

/// What is asked of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// It is there, with one of these values.
    In(BTreeSet<String>),
    /// It is not there, or with another value.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is there, and a larger number.
    Above(i64),
    /// It is there, and a smaller number.
    Below(i64),
}

impl LabelSelector {
    /// From what one `-l` was given.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Parser { text, at: 0 }.selector().map(Self)
    }

    /// From all that `-l` was given: all of it is asked for.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Self, String> {
        let parsed: Vec<Self> = texts.iter().map(|text| Self::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self(parsed.into_iter().flat_map(|selector| selector.0).collect()))
    }

    /// Whether it selects everything.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects what has these labels.
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

/// In the syntax that [`LabelSelector::parse`] takes.
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

/// The longer ones before those that they begin with.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];

const fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ',')
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// A symbol or a word; empty at the end. Words are told by where they stand: `in` may be a label, too.
#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    /// Where it begins, in bytes.
    at: usize,
}

impl Token<'_> {
    fn is_word(self) -> bool {
        !self.text.is_empty() && !self.text.starts_with(is_symbol)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// What is parsed already, in bytes.
    at: usize,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Vec<Requirement>, String> {
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

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_negated = self.take("!");
        let token = self.next();
        if !token.is_word() {
            return Err(self.expected("a label's key", token));
        }
        self.check_key(token)?;
        Ok(Requirement { key: token.text.to_owned(), condition: self.condition(is_negated)? })
    }

    fn condition(&mut self, is_negated: bool) -> Result<Condition, String> {
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
            _ => return Err(self.expected("=, ==, !=, in, notin, <, > or a comma", operator)),
        })
    }

    /// A value, which may be empty where something else could not stand.
    fn value(&mut self) -> Result<String, String> {
        let token = self.peek();
        if matches!(token.text, "" | ",") {
            return Ok(String::new());
        }
        self.next();
        self.word(token)
    }

    /// Values in parentheses, empty ones too: `(a,,b)`, `()`.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let token = self.next();
        if token.text != "(" {
            return Err(self.expected("(", token));
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
                _ => return Err(self.expected("a comma or )", token)),
            }
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let token = self.peek();
        self.value()?.parse().map_err(|_| self.expected("a whole number", token))
    }

    fn word(&self, token: Token<'_>) -> Result<String, String> {
        if !token.is_word() {
            return Err(self.expected("a value", token));
        }
        self.check("value", token, name_problem(token.text))?;
        Ok(token.text.to_owned())
    }

    /// A key is a name, before which a domain and a slash may stand.
    fn check_key(&self, key: Token<'_>) -> Result<(), String> {
        let Some((prefix, name)) = key.text.split_once('/') else {
            return self.check("key", key, name_problem(key.text));
        };
        self.check("prefix", Token { text: prefix, at: key.at }, prefix_problem(prefix))?;
        self.check("name", Token { text: name, at: key.at + prefix.len() + 1 }, name_problem(name))
    }

    fn check(&self, what: &str, piece: Token<'_>, problem: Option<String>) -> Result<(), String> {
        let Some(problem) = problem else { return Ok(()) };
        Err(format!(
            "{:?}: the {what} {:?} at character {} {problem}",
            self.text,
            piece.text,
            self.place(piece)
        ))
    }

    fn expected(&self, what: &str, found: Token<'_>) -> String {
        let Self { text, .. } = self;
        match found.text {
            "" => format!("{text:?}: {what} is missing at the end"),
            symbol => {
                format!("{text:?}: {symbol:?} at character {}, where {what} belongs", self.place(found))
            }
        }
    }

    /// Counted from 1, in characters.
    fn place(&self, token: Token<'_>) -> usize {
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

/// Names and values are as long as this at the most.
const NAME_MAX: usize = 63;
/// A prefix is a DNS subdomain (RFC 1123).
const PREFIX_MAX: usize = 253;

/// What is wrong with a name or with a value that is not empty.
fn name_problem(name: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        Some("is empty".into())
    } else if name.len() > NAME_MAX {
        Some(format!("is longer than {NAME_MAX} characters"))
    } else if let Some(c) = name.chars().find(|c| !is_allowed(*c)) {
        Some(format!("has a {c:?}: there may be letters, digits, -, _ and ."))
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        Some("does not begin and end with a letter or digit".into())
    } else {
        None
    }
}

fn prefix_problem(prefix: &str) -> Option<String> {
    let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if prefix.is_empty() {
        Some("is empty".into())
    } else if prefix.len() > PREFIX_MAX {
        Some(format!("is longer than {PREFIX_MAX} characters"))
    } else if let Some(c) = prefix.chars().find(|c| !is_lower(*c) && !matches!(c, '-' | '.')) {
        Some(format!("has a {c:?}: there may be small letters, digits, - and ."))
    } else if !prefix.split('.').all(|part| part.starts_with(is_lower) && part.ends_with(is_lower)) {
        Some("has a part that does not begin and end with a small letter or digit".into())
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
        let error = LabelSelector::parse(selector).unwrap_err();
        assert!(error.starts_with(&format!("{selector:?}: ")), "{error}");
        error
    }

    #[test]
    fn equality() {
        for selector in ["a=b", "a==b", " a =\tb ", "a in (b)", "a in(b)"] {
            assert!(selects(selector, &[("a", "b"), ("x", "y")]), "{selector}");
            assert!(!selects(selector, &[("a", "c")]), "{selector}");
            assert!(!selects(selector, &[]), "{selector}");
        }
    }

    #[test]
    fn what_is_excluded_may_be_absent() {
        for selector in ["a!=b", "a notin (b)", "a != b", "a notin (x,b)"] {
            assert!(!selects(selector, &[("a", "b")]), "{selector}");
            assert!(selects(selector, &[("a", "c")]), "{selector}");
            assert!(selects(selector, &[]), "{selector}");
        }
    }

    #[test]
    fn existence() {
        assert!(selects("a", &[("a", "")]) && !selects("a", &[("b", "a")]));
        assert!(selects("!a", &[("b", "a")]) && !selects(" ! a ", &[("a", "")]));
    }

    #[test]
    fn an_empty_value_is_a_value() {
        for selector in ["a=", "a==", "a= ,a", "a in ()", "a in (,)", "a in (b,)", "a in (,b)", "a in (b,,c)"]
        {
            assert!(selects(selector, &[("a", "")]), "{selector}");
            assert!(!selects(selector, &[]), "{selector}");
        }
        assert!(!selects("a!=", &[("a", "")]) && selects("a!=", &[("a", "b")]));
        assert!(!selects("a notin ()", &[("a", "")]) && selects("a notin ()", &[]));
    }

    #[test]
    fn a_comma_means_and() {
        let selector = "a=b,c!=d , e in ( f ,g ),!h,i";
        assert!(selects(selector, &[("a", "b"), ("e", "g"), ("i", "x")]));
        assert!(!selects(selector, &[("a", "b"), ("e", "g")]));
        assert!(!selects(selector, &[("a", "b"), ("c", "d"), ("e", "g"), ("i", "")]));
        assert!(!selects(selector, &[("a", "b"), ("e", "g"), ("h", ""), ("i", "")]));
        assert!(!selects("a=b,a=c", &[("a", "b")]));
    }

    #[test]
    fn several_selectors_are_and_ed() {
        let all = LabelSelector::parse_all(&["a=b".into(), String::new(), "!c".into()]).unwrap();
        assert_eq!(all, LabelSelector::parse("a=b,!c").unwrap());
        assert!(LabelSelector::parse_all(&["a=b".into(), "!".into()]).is_err());
        assert!(LabelSelector::parse_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn numbers_are_compared() {
        assert!(selects("a>1", &[("a", "2")]) && !selects("a>1", &[("a", "1")]));
        assert!(selects("a < 10", &[("a", "9")]) && !selects("a<10", &[("a", "10")]));
        assert!(!selects("a>1", &[("a", "x")]) && !selects("a<1", &[]));
        assert!(error("a<b").contains("whole number") && error("a>").contains("whole number"));
    }

    #[test]
    fn words_of_the_syntax_may_be_labels() {
        assert!(selects("in in (in,notin)", &[("in", "notin")]));
        assert!(selects("notin=in,in", &[("in", ""), ("notin", "in")]));
        assert!(selects("!notin", &[("in", "")]));
    }

    #[test]
    fn nothing_asks_for_nothing() {
        for selector in ["", "  ", "\t\n"] {
            assert!(LabelSelector::parse(selector).unwrap().is_empty());
            assert!(selects(selector, &[]));
        }
    }

    #[test]
    fn keys_have_a_prefix_or_none() {
        let long = format!("{}.example.com/{}", ["a"; 120].join("."), "n".repeat(63));
        for key in ["example.com/name", "a/b", "1.2-3.x/A_b.C-9", "x", "9", &long] {
            assert!(selects(key, &[(key, "v")]), "{key}");
        }
    }

    #[test]
    fn what_is_no_key_is_an_error_that_names_it_and_its_place() {
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
            assert!(error.contains(&format!(" at character {place} ")), "{error}");
        }
    }

    #[test]
    fn what_is_no_value_is_an_error_that_names_it_and_its_place() {
        for (selector, piece, place) in [
            ("a=-b", r#"value "-b""#, 3),
            ("ab in (c, d.)", r#"value "d.""#, 11),
            ("a=b/c", r#"value "b/c""#, 3),
            ("ab!=ö", r#"value "ö""#, 5),
            (&format!("a={}", "x".repeat(64)), r#"value "xxx"#, 3),
        ] {
            let error = error(selector);
            assert!(error.contains(piece), "{error}");
            assert!(error.contains(&format!(" at character {place} ")), "{error}");
        }
        assert!(LabelSelector::parse(&format!("a={}", "x".repeat(63))).is_ok());
    }

    #[test]
    fn what_does_not_belong_is_named_with_its_place() {
        for (selector, found) in [
            ("a=b c", r#""c" at character 5, where a comma"#),
            ("a b", r#""b" at character 3, where =,"#),
            ("a==b==c", r#""==" at character 5"#),
            ("a===b", r#""=" at character 4, where a value"#),
            ("a=(b)", r#""(" at character 3, where a value"#),
            ("!a=b", r#""=" at character 3, where a comma"#),
            ("!a in (b)", r#""in" at character 4, where a comma"#),
            ("!!a", r#""!" at character 2, where a label's key"#),
            ("a! =b", r#""!" at character 2"#),
            ("a in b", r#""b" at character 6, where ("#),
            ("a in (b c)", r#""c" at character 9, where a comma or )"#),
            ("a in (b=c)", r#""=" at character 8"#),
            ("a in (!b)", r#""!" at character 7, where a value"#),
            ("a in (b))", r#"")" at character 9, where a comma"#),
            (",a", r#""," at character 1, where a label's key"#),
            ("a,,b", r#""," at character 3, where a label's key"#),
            ("=b", r#""=" at character 1, where a label's key"#),
            ("a,", "a label's key is missing at the end"),
            ("!", "a label's key is missing at the end"),
            ("a in (b,", "a value is missing at the end"),
            ("a in (b", "a comma or ) is missing at the end"),
            ("a notin", "( is missing at the end"),
        ] {
            let error = error(selector);
            assert!(error.contains(found), "{error}");
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
        fn what_is_printed_is_read_back(requirements in prop::collection::vec(requirement(), 0..5)) {
            let selector = LabelSelector(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn what_is_read_is_printed_so_that_it_is_read_alike(text in "[ab/.=!<>(), -]{0,12}|[a ](=|!=| in| notin) ?[(,ab]{0,3}[),]{0,2}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }

        #[test]
        fn no_text_is_too_much(text: String) {
            if let Err(error) = LabelSelector::parse(&text) {
                prop_assert!(!error.chars().any(char::is_control), "{}", error);
            }
        }
    }
}
