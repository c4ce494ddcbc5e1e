use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// A source of annotations for [`resolve`](crate::resolve): a reference to a map, to an `Option` of one
/// (`annotations` is optional in OCI), or a closure that borrows what it searches.
pub trait Annotations<'a>: Copy {
    /// The value of the annotation `key`, if there is one.
    fn get(self, key: &str) -> Option<&'a str>;
}

impl<'a, K, V, S> Annotations<'a> for &'a HashMap<K, V, S>
where
    K: Borrow<str> + Eq + Hash,
    V: AsRef<str>,
    S: BuildHasher,
{
    fn get(self, key: &str) -> Option<&'a str> {
        HashMap::get(self, key).map(AsRef::as_ref)
    }
}

impl<'a, K: Borrow<str> + Ord, V: AsRef<str>> Annotations<'a> for &'a BTreeMap<K, V> {
    fn get(self, key: &str) -> Option<&'a str> {
        BTreeMap::get(self, key).map(AsRef::as_ref)
    }
}

impl<'a, M> Annotations<'a> for &'a Option<M>
where
    &'a M: Annotations<'a>,
{
    fn get(self, key: &str) -> Option<&'a str> {
        self.as_ref()?.get(key)
    }
}

impl<'a, F: Fn(&str) -> Option<&'a str> + Copy> Annotations<'a> for F {
    fn get(self, key: &str) -> Option<&'a str> {
        self(key)
    }
}
