//! `-p TYPE/NAME`: the pods of a workload, as kubectl's `logs` and `exec` take them. The workload's label selector is read from
//! the API server, so that pods are selected which it creates later.

use std::fmt::Debug;

use anyhow::{Context as _, anyhow};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::{Api, Client, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use crate::{
    cli::args::SelectionArgs,
    error::Usage,
    kubectl::{cluster, text},
};

/// The types of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Deployment,
    DaemonSet,
    StatefulSet,
    ReplicaSet,
    ReplicationController,
    Job,
}

/// A workload, by its type and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    of: Type,
    name: String,
    /// As it was given.
    pub(super) text: String,
}

impl Type {
    /// The type of that name: kubectl's full, plural and short ones, with or without the group.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.split('.').next().unwrap_or_default() {
            "deploy" | "deployment" | "deployments" => Self::Deployment,
            "ds" | "daemonset" | "daemonsets" => Self::DaemonSet,
            "sts" | "statefulset" | "statefulsets" => Self::StatefulSet,
            "rs" | "replicaset" | "replicasets" => Self::ReplicaSet,
            "rc" | "replicationcontroller" | "replicationcontrollers" => Self::ReplicationController,
            "job" | "jobs" => Self::Job,
            _ => return None,
        })
    }
}

impl Workload {
    fn parse(text: &str) -> Option<Self> {
        let (of, name) = text.split_once('/')?;
        let of = Type::of(of)?;
        Some(Self { of, name: name.to_owned(), text: text.to_owned() })
    }

    /// Takes the workload out of the pods of a selection. `pod/NAME` becomes `NAME`.
    pub(super) fn take(selection: &mut SelectionArgs) -> Result<Option<Self>, Usage> {
        let items = selection.pod.iter().flat_map(|value| value.split(','));
        let pods: Vec<String> =
            items.map(|item| item.strip_prefix("pod/").unwrap_or(item).to_owned()).collect();
        if let Some(excluded) =
            pods.iter().find(|item| item.strip_prefix('!').and_then(Self::parse).is_some())
        {
            return Err(Usage(format!(
                "--pod: {excluded:?}: a workload cannot be excluded; use -l with its labels"
            )));
        }
        let Some(workload) = pods.iter().find_map(|item| Self::parse(item)) else {
            selection.pod = pods;
            return Ok(None);
        };
        if pods.len() > 1 {
            return Err(Usage(format!(
                "--pod: {:?} cannot be combined with other pods; use -l with the labels of all",
                workload.text
            )));
        }
        let is_one = |namespace: &String| !namespace.contains([',', '!', '*', '?', '[']);
        if selection.all_namespaces
            || selection.namespace.len() > 1
            || !selection.namespace.iter().all(is_one)
        {
            return Err(Usage(format!("--pod: {:?} is in one namespace; give it with -n", workload.text)));
        }
        selection.pod.clear();
        Ok(Some(workload))
    }

    /// The label selector of its pods, as `-l` takes it.
    pub(super) async fn selector(&self, client: &Client, namespace: &str) -> anyhow::Result<String> {
        let selector = match self.of {
            Type::Deployment => {
                self.get::<Deployment>(client, namespace).await?.spec.map(|spec| spec.selector)
            }
            Type::DaemonSet => self.get::<DaemonSet>(client, namespace).await?.spec.map(|spec| spec.selector),
            Type::StatefulSet => {
                self.get::<StatefulSet>(client, namespace).await?.spec.map(|spec| spec.selector)
            }
            Type::ReplicaSet => {
                self.get::<ReplicaSet>(client, namespace).await?.spec.map(|spec| spec.selector)
            }
            Type::Job => self.get::<Job>(client, namespace).await?.spec.and_then(|spec| spec.selector),
            Type::ReplicationController => {
                let controller = self.get::<ReplicationController>(client, namespace).await?;
                let match_labels = controller.spec.and_then(|spec| spec.selector);
                Some(LabelSelector { match_labels, match_expressions: None })
            }
        };
        let selector = selector.map(|selector| printed(&selector)).filter(|selector| !selector.is_empty());
        selector.with_context(|| format!("{} has no label selector", text::line(&self.text)))
    }

    async fn get<K>(&self, client: &Client, namespace: &str) -> anyhow::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        Api::namespaced(client.clone(), namespace).get(&self.name).await.map_err(|error| {
            let (workload, namespace) = (text::line(&self.text), text::line(namespace));
            anyhow!("cannot read {workload} in namespace {namespace}: {}", cluster::problem(&error))
        })
    }
}

/// A label selector in the form of `-l`.
fn printed(selector: &LabelSelector) -> String {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    labels.chain(match_expressions.iter().flatten().map(expression)).collect::<Vec<_>>().join(",")
}

fn expression(requirement: &LabelSelectorRequirement) -> String {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(",");
    match operator.as_str() {
        "Exists" => key.clone(),
        "DoesNotExist" => format!("!{key}"),
        operator => format!("{key} {} ({values})", operator.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model;

    fn take(pods: &[&str], namespaces: &[&str]) -> Result<(Option<String>, Vec<String>), String> {
        let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut selection = SelectionArgs {
            namespace: owned(namespaces),
            all_namespaces: false,
            pod: owned(pods),
            container: Vec::new(),
            selector: Vec::new(),
        };
        let workload = Workload::take(&mut selection).map_err(|Usage(problem)| problem)?;
        Ok((workload.map(|workload| workload.text), selection.pod))
    }

    #[test]
    fn workload_is_taken_from_the_pods() {
        for name in
            ["deploy/web", "deployment/web", "deployments.apps/web", "ds/web", "sts/web", "job/web", "RS/web"]
        {
            assert_eq!(take(&[name], &["a"]), Ok((Some(name.to_owned()), vec![])));
        }
        assert_eq!(
            take(&["pod/web,shop/web-*", "!x"], &[]),
            Ok((None, vec!["web".into(), "shop/web-*".into(), "!x".into()]))
        );
    }

    #[test]
    fn workload_that_cannot_be_selected_is_an_error() {
        assert!(take(&["deploy/web,web-0"], &[]).unwrap_err().contains("cannot be combined"));
        assert!(take(&["!deploy/web"], &[]).unwrap_err().contains("cannot be excluded"));
        for namespaces in [&["a", "b"][..], &["a,b"], &["a*"], &["!a"]] {
            assert!(take(&["deploy/web"], namespaces).unwrap_err().contains("one namespace"));
        }
    }

    #[test]
    fn selector_of_a_workload_is_read_by_the_label_selector() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "env", "operator": "NotIn", "values": ["dev"]},
                {"key": "x", "operator": "Exists"},
                {"key": "y", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap();
        let printed = printed(&selector);
        assert_eq!(printed, "app=web,tier in (a,b),env notin (dev),x,!y");
        let selector = model::LabelSelector::parse(&printed).unwrap();
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "b"), ("x", "")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "b"), ("x", ""), ("y", "")])));
    }
}
