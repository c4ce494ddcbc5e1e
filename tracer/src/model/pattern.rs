//! Values that an option includes and excludes.

use std::fmt::Display;

/// Values to include and values to exclude: names or numbers. An empty pattern selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<T> {
    included: Vec<T>,
    excluded: Vec<T>,
}

impl<T> Default for Pattern<T> {
    fn default() -> Self {
        Self { included: Vec::new(), excluded: Vec::new() }
    }
}

/// Why a value of an option is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// An item of this value is empty.
    #[error("{0:?} has an empty item; write X, X,Y or !X")]
    Empty(String),
    /// This item is invalid, and why.
    #[error("{0:?} {1}")]
    Invalid(String, String),
    /// This item and all others are included and excluded.
    #[error("{0:?} is included and excluded: nothing is selected")]
    Contradiction(String),
}

/// A value that a pattern includes or excludes.
pub(crate) trait Item {
    /// Whether it selects everything that `other` selects.
    fn covers(&self, other: &Self) -> bool;
}

impl<T: Item> Pattern<T> {
    /// Parses the values of an option: each is a list separated by commas, with `!x` to exclude x. `parse` parses an item.
    pub(crate) fn parse<E: Display>(
        values: &[String],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Self, PatternError> {
        let (mut pattern, mut contradiction) = (Self::default(), None);
        for value in values {
            for item in value.split(',') {
                let (list, text) = match item.strip_prefix('!') {
                    Some(text) => (&mut pattern.excluded, text),
                    None => (&mut pattern.included, item),
                };
                if text.is_empty() {
                    return Err(PatternError::Empty(value.clone()));
                }
                let invalid = |error: E| PatternError::Invalid(text.to_owned(), error.to_string());
                list.push(parse(text).map_err(invalid)?);
                if !item.starts_with('!') {
                    contradiction.get_or_insert_with(|| text.to_owned());
                }
            }
        }
        let is_excluded = |included: &T| pattern.excluded.iter().any(|excluded| excluded.covers(included));
        match contradiction {
            Some(text) if pattern.included.iter().all(is_excluded) => Err(PatternError::Contradiction(text)),
            _ => Ok(pattern),
        }
    }
}

impl<T> Pattern<T> {
    /// Whether it selects everything.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.included.is_empty() && self.excluded.is_empty()
    }

    /// The included values; if there are none, all values are included.
    #[must_use]
    pub(crate) fn wanted(&self) -> &[T] {
        &self.included
    }

    /// The included values that are names of single things.
    #[cfg(feature = "kubectl")]
    pub(crate) fn literals(&self, literal: fn(&T) -> Option<&str>) -> Vec<String> {
        self.included.iter().filter_map(literal).map(ToOwned::to_owned).collect()
    }

    /// The excluded values, even if they are included too.
    #[must_use]
    pub(crate) fn unwanted(&self) -> &[T] {
        &self.excluded
    }

    /// Whether it selects what `is` holds for.
    #[must_use]
    pub(crate) fn selects(&self, is: impl Fn(&T) -> bool) -> bool {
        (self.included.is_empty() || self.included.iter().any(&is)) && !self.excluded.iter().any(&is)
    }
}

impl Item for u32 {
    fn covers(&self, other: &Self) -> bool {
        self == other
    }
}

/// Parses a number: an item of a pattern.
pub(crate) fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "is not a number from 0 to 4294967295")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(values: &[&str]) -> Result<Pattern<u32>, PatternError> {
        Pattern::parse(&values.iter().map(ToString::to_string).collect::<Vec<_>>(), number)
    }

    #[test]
    fn pattern_combines_lists_repetitions_and_exclusions() {
        let selects = |values: &[&str], value: u32| pattern(values).unwrap().selects(|item| *item == value);
        assert!(selects(&[], 1));
        assert!(selects(&["1,2", "3"], 3));
        assert!(!selects(&["1,2"], 3));
        assert!(selects(&["!1"], 2));
        assert!(!selects(&["!1,!2"], 2));
        assert!(!selects(&["1,2,!2"], 2));
    }

    #[test]
    fn empty_item_is_an_error_that_quotes_the_value() {
        for value in ["", "1,", "!", ",1", "1,!"] {
            let error = pattern(&[value]).unwrap_err().to_string();
            assert!(error.contains(&format!("{value:?}")), "{error}");
        }
    }

    #[test]
    fn included_and_excluded_numbers_are_checked() {
        for (value, item) in [("1,!x", "x"), ("-1", "-1"), ("4294967296", "4294967296")] {
            assert!(pattern(&[value]).unwrap_err().to_string().starts_with(&format!("{item:?} is not a")));
        }
    }

    #[test]
    fn pattern_that_excludes_all_it_includes_is_an_error() {
        assert_eq!(pattern(&["1,!1"]), Err(PatternError::Contradiction("1".into())));
        assert_eq!(pattern(&["1,2", "!2,!1,!3"]), Err(PatternError::Contradiction("1".into())));
        assert!(pattern(&["1,2,!1"]).is_ok());
        assert!(pattern(&["!1"]).is_ok());
    }
}
