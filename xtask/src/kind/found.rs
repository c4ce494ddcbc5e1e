//! What a cluster takes, and whether it is here.

use std::{ffi::OsStr, process::Stdio};

use crate::{
    image::Engine,
    pins::{KIND, KIND_NODE},
    process::{clean, find, quietly},
};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The version of kind.
    kind: Option<String>,
    kubectl: bool,
    /// Whether docker's daemon answers.
    docker: bool,
    /// Whether there is the image of nodes, or it could be fetched.
    node_image: bool,
}

impl Found {
    /// Looks. Fetches the image of nodes where all the rest is there.
    pub(super) fn look() -> Self {
        let kind = find("kind").and_then(|kind| {
            Some(quietly(clean(kind.as_os_str()).args(["version", "--quiet"])).ok()?.trim().to_owned())
        });
        let (kubectl, docker) = (find("kubectl").is_some(), Engine::Docker.works());
        let node_image = docker && (has_image() || (kind.is_some() && kubectl && fetch_image()));
        Self { kind, kubectl, docker, node_image }
    }

    /// What is missing, a line each, with what to do.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        match self.kind.as_deref().map(|version| version.trim_start_matches('v')) {
            Some(KIND) => {}
            Some(other) => {
                missing.push(format!("kind {KIND}, instead of {other}: its nodes need not be compatible"));
            }
            None => missing
                .push(format!("kind {KIND}: `go install sigs.k8s.io/kind@v{KIND}`, or a release of it")),
        }
        if !self.kubectl {
            missing.push("kubectl: from your distribution, or a release of Kubernetes".to_owned());
        }
        if !self.docker {
            missing.push("docker, with its daemon running and answering this user".to_owned());
        }
        if !self.node_image {
            missing.push(format!(
                "the image of nodes, {KIND_NODE}: it is not here, and there is no registry to fetch it from"
            ));
        }
        missing
    }
}

fn has_image() -> bool {
    quietly(Engine::Docker.command().args(["image", "inspect", KIND_NODE])).is_ok()
}

fn fetch_image() -> bool {
    let mut pull = clean(OsStr::new("docker"));
    pull.args(["pull", KIND_NODE]).stdin(Stdio::null()).stdout(std::io::stderr());
    pull.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Found {
        Found { kind: Some(KIND.to_owned()), kubectl: true, docker: true, node_image: true }
    }

    #[test]
    fn nothing_is_missing_where_all_is_there() {
        assert_eq!(all().missing(), [""; 0]);
        assert_eq!(Found { kind: Some(format!("v{KIND}")), ..all() }.missing(), [""; 0]);
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let nothing = Found { kind: None, kubectl: false, docker: false, node_image: false };
        let missing = nothing.missing();
        assert_eq!(missing.len(), 4);
        for (line, word) in missing.iter().zip(["kind ", "kubectl", "docker", KIND_NODE]) {
            assert!(line.contains(word), "{line}");
        }
        let other = Found { kind: Some("0.1.0".into()), ..all() }.missing();
        assert!(other[0].contains("instead of 0.1.0"), "{other:?}");
    }
}
