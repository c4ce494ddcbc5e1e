//! The columns that rows of every kind have: they tell a container.

use std::io::{self, Write as _};

use crate::{
    model::{Container, Pod},
    output::{
        columns::{Column, NODE, Rows},
        look::Mark,
    },
};

impl<K: Rows> Column<K> {
    pub(crate) const NODE: Self = Self::of_container(NODE, 16, |node, _, out| out.write_all(node.as_bytes()));
    pub(crate) const NAMESPACE: Self = Self::of_container("NAMESPACE", 16, |_, container, out| {
        pod(container, out, |pod| Some(&pod.namespace))
    });
    pub(crate) const POD: Self =
        Self::of_container("POD", 32, |_, container, out| pod(container, out, |pod| Some(&pod.name)))
            .marked(Mark::Hue);
    pub(crate) const CONTAINER: Self = Self::of_container("CONTAINER", 16, |_, container, out| {
        pod(container, out, |pod| pod.container.as_deref())
    });
    pub(crate) const RUNTIME: Self = Self::of_container("RUNTIME", 10, |_, container, out| {
        of(container, |container| out.write_all(container.runtime.as_bytes()))
    });
    /// `ID`, or `ID/INNERID` for what a container has started within itself.
    pub(crate) const CONTAINER_ID: Self =
        Self::of_container("CONTAINERID", ENGINE_ID, |_, container, out| {
            of(container, |container| write_id(container, out, whole))
        });
    /// The same, of an engine's long ids no more than engines' clients show.
    pub(crate) const SHORT_CONTAINER_ID: Self = Self::of_container("CONTAINERID", 12, |_, container, out| {
        of(container, |container| write_id(container, out, short))
    });
    pub(crate) const TYPE: Self = Self::of_container("TYPE", 9, |_, container, out| {
        of(container, |container| out.write_all(container.kind.as_str().as_bytes()))
    });
    pub(crate) const IMAGE: Self = Self::of_container("IMAGE", 24, |_, container, out| {
        of(container, |container| out.write_all(container.image.as_deref().unwrap_or_default().as_bytes()))
    });
    /// `cgroup:untrusted`: how it was learnt, and why not better.
    pub(crate) const SOURCE: Self = Self::of_container("SOURCE", 16, |_, container, out| {
        of(container, |container| {
            out.write_all(container.source.as_str().as_bytes())?;
            container.why.map_or(Ok(()), |why| write!(out, ":{}", why.as_str()))
        })
    });
}

fn of(container: Option<&Container>, write: impl FnOnce(&Container) -> io::Result<()>) -> io::Result<()> {
    container.map_or(Ok(()), write)
}

fn pod(container: Option<&Container>, out: &mut Vec<u8>, field: fn(&Pod) -> Option<&str>) -> io::Result<()> {
    let value = container.and_then(|container| container.pod.as_ref()).and_then(field);
    out.write_all(value.unwrap_or_default().as_bytes())
}

fn write_id(container: &Container, out: &mut Vec<u8>, form: fn(&str) -> &str) -> io::Result<()> {
    out.write_all(form(&container.id).as_bytes())?;
    container.inner.as_ref().map_or(Ok(()), |inner| write!(out, "/{}", form(&inner.id)))
}

const fn whole(id: &str) -> &str {
    id
}

/// The length of the ids that engines make up, in hexadecimal digits.
const ENGINE_ID: usize = 64;
/// How much of one crictl and docker show.
const SHORT: usize = 12;

/// Only ids that an engine generated are shortened: a name that a user chose may differ at its end only.
fn short(id: &str) -> &str {
    let is_engines = id.len() == ENGINE_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_engines { &id[..SHORT] } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_somebody_chose_is_whole() {
        assert_eq!(short(&"0123456789abcdef".repeat(4)), "0123456789ab");
        for id in ["web-frontend-1", "", &"g".repeat(64), &"a".repeat(63), &"\u{e9}".repeat(32)] {
            assert_eq!(short(id), id);
        }
    }
}
