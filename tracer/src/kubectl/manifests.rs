//! The objects that `kubectl tracer deploy` applies, read from `deploy/`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        batch::v1::{Job, JobSpec},
        core::v1::{Container, Namespace, PodSpec, PodTemplateSpec, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    kubectl::{
        agents::{CONTAINER, Selector},
        confinement::Seccomp,
        restriction::Restriction,
    },
    run::lease::format_term,
};

const NAMESPACE: &str = include_str!("../../../deploy/namespace.yaml");
const ACCOUNT: &str = include_str!("../../../deploy/serviceaccount.yaml");
const AGENTS: &str = include_str!("../../../deploy/daemonset.yaml");

/// The longest time that an agent for one run exists, in seconds: a day. An agent that never starts, because its image is
/// missing, has no lease that could expire.
const DEADLINE: i64 = 24 * 60 * 60;

/// The deployed objects.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    pub(super) namespace: Namespace,
    /// The `ServiceAccount` of the agents, without permissions.
    pub(super) account: ServiceAccount,
    pub(super) agents: DaemonSet,
    /// The objects of `--restrict-exec`.
    pub(super) restriction: Option<Restriction>,
}

impl Manifests {
    /// The objects of `deploy/` in a namespace, with another image if one is given.
    pub(super) fn new(namespace: &str, image: Option<&str>) -> anyhow::Result<Self> {
        let mut manifests = Self {
            namespace: parse("namespace.yaml", NAMESPACE)?,
            account: parse("serviceaccount.yaml", ACCOUNT)?,
            agents: parse("daemonset.yaml", AGENTS)?,
            restriction: None,
        };
        manifests.namespace.metadata.name = Some(namespace.to_owned());
        for metadata in [&mut manifests.account.metadata, &mut manifests.agents.metadata] {
            metadata.namespace = Some(namespace.to_owned());
        }
        if let Some(image) = image {
            ensure!(!image.is_empty() && !image.contains(char::is_whitespace), "{image:?} is not an image");
            container(manifests.pod()?)?.image = Some(image.to_owned());
        }
        Ok(manifests)
    }

    /// Sets the seccomp profile and the SELinux type of the agents.
    pub(super) fn confine(
        &mut self,
        seccomp: Option<&Seccomp>,
        selinux_type: Option<&str>,
    ) -> anyhow::Result<()> {
        let context = container(self.pod()?)?.security_context.get_or_insert_default();
        if let Some(seccomp) = seccomp {
            context.seccomp_profile = Some(seccomp.profile());
        }
        if let Some(selinux_type) = selinux_type {
            context.se_linux_options.get_or_insert_default().type_ = Some(selinux_type.to_owned());
        }
        Ok(())
    }

    /// All objects without the restriction, in the order in which they are applied.
    pub(super) fn documents(&self) -> anyhow::Result<[Value; 3]> {
        Ok([
            serde_json::to_value(&self.namespace)?,
            serde_json::to_value(&self.account)?,
            serde_json::to_value(&self.agents)?,
        ])
    }

    /// A job with an agent on one node for one run, which `instance` identifies. If nothing deletes it, the cluster does
    /// once the agent's lease has expired.
    pub(super) fn job(mut self, node: &str, instance: &str, lease: Duration) -> anyhow::Result<Job> {
        let namespace = self.agents.metadata.namespace.take();
        let mut labels = self.agents.metadata.labels.take().unwrap_or_default();
        labels.extend(Selector::Instance(instance.to_owned()).labels());
        let annotations = self.template()?.metadata.as_mut().and_then(|metadata| metadata.annotations.take());
        let mut pod = std::mem::take(self.pod()?);
        pod.node_name = Some(node.to_owned());
        pod.restart_policy = Some("Never".to_owned());
        // The `ServiceAccount` of the deployment may not exist.
        pod.service_account_name = None;
        let container = container(&mut pod)?;
        container.stdin = Some(true);
        container.command.get_or_insert_default().push(format!("--lease={}", format_term(lease)));
        let metadata = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
        Ok(Job {
            metadata: ObjectMeta {
                generate_name: Some(format!("tracer-{instance}-")),
                namespace,
                ..metadata.clone()
            },
            spec: Some(JobSpec {
                active_deadline_seconds: Some(DEADLINE),
                backoff_limit: Some(0),
                ttl_seconds_after_finished: Some(0),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta { annotations, ..metadata }),
                    spec: Some(pod),
                },
                ..JobSpec::default()
            }),
            status: None,
        })
    }

    fn template(&mut self) -> anyhow::Result<&mut PodTemplateSpec> {
        Ok(&mut self.agents.spec.as_mut().context("daemonset.yaml has no spec")?.template)
    }

    fn pod(&mut self) -> anyhow::Result<&mut PodSpec> {
        self.template()?.spec.as_mut().context("daemonset.yaml has no pod")
    }
}

fn container(pod: &mut PodSpec) -> anyhow::Result<&mut Container> {
    let mut containers = pod.containers.iter_mut();
    let found = containers.find(|container| container.name == CONTAINER);
    found.with_context(|| format!("daemonset.yaml has no container {CONTAINER}"))
}

pub(super) fn parse<T: DeserializeOwned>(name: &str, text: &str) -> anyhow::Result<T> {
    serde_yaml_ng::from_str(text).with_context(|| format!("deploy/{name} of this build"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubectl::{agents::INSTANCE, nodes::UNSUPPORTED};

    fn yaml(text: &str) -> Value {
        serde_yaml_ng::from_str(text).unwrap()
    }

    #[test]
    fn objects_survive_a_round_trip_through_the_types_of_kubernetes() {
        let manifests = Manifests::new("tracer", None).unwrap();
        assert_eq!(manifests.documents().unwrap(), [NAMESPACE, ACCOUNT, AGENTS].map(yaml));
    }

    #[test]
    fn namespace_and_image_can_be_set() {
        let documents =
            Manifests::new("other", Some("registry.example/tracer:2")).unwrap().documents().unwrap();
        assert_eq!(documents[0]["metadata"]["name"], "other");
        assert_eq!(documents[1]["metadata"]["namespace"], "other");
        assert_eq!(documents[2]["metadata"]["namespace"], "other");
        let container = &documents[2]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example/tracer:2");
        assert!(Manifests::new("other", Some("")).is_err());
    }

    #[test]
    fn the_image_has_the_version_of_this_build() {
        let image = yaml(AGENTS)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        assert_eq!(image, concat!("tracer:", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_agent_has_only_the_permissions_that_it_needs() {
        let [_, account, agents] = Manifests::new("tracer", None).unwrap().documents().unwrap();
        let pod = &agents["spec"]["template"]["spec"];
        assert_eq!(
            (&account["automountServiceAccountToken"], &pod["automountServiceAccountToken"]),
            (&false.into(), &false.into())
        );
        assert_eq!(pod["hostPID"], true);
        for absent in ["hostNetwork", "hostIPC", "initContainers"] {
            assert_eq!(pod[absent], Value::Null, "{absent}");
        }
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        let context = &containers[0]["securityContext"];
        assert_eq!(context["privileged"], false);
        // Only the file /tracer has capabilities.
        assert_eq!((&context["runAsNonRoot"], &context["runAsGroup"]), (&true.into(), &0.into()));
        assert_eq!(context["allowPrivilegeEscalation"], true);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        let needed: Vec<&str> =
            crate::sys::capabilities::REQUIRED.iter().map(|needed| &needed.name["CAP_".len()..]).collect();
        assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"], "add": needed}));
        // The node's files are read below /proc/1/root: a volume with a path that a node lacks would block its agent.
        assert_eq!((&containers[0]["volumeMounts"], &pod["volumes"]), (&Value::Null, &Value::Null));
        for bound in ["requests", "limits"] {
            assert!(containers[0]["resources"][bound]["memory"].is_string(), "{bound}");
        }
        assert_eq!(
            pod["tolerations"],
            serde_json::json!([{"operator": "Exists"}]),
            "agents run on every node"
        );
    }

    #[test]
    fn unsupported_nodes_are_excluded() {
        let agents = yaml(AGENTS);
        let affinity = &agents["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let expected: Vec<Value> = UNSUPPORTED
            .iter()
            .map(|(key, value, _)| serde_json::json!({"key": key, "operator": "NotIn", "values": [value]}))
            .collect();
        assert_eq!(*terms, serde_json::json!([{"matchExpressions": expected}]));
    }

    #[test]
    fn a_job_has_the_same_pod_bound_to_a_node_and_a_limited_lifetime() {
        let manifests = Manifests::new("kube-system", None).unwrap();
        let template = serde_json::to_value(&manifests.agents).unwrap()["spec"]["template"].clone();
        let job = manifests.job("worker-1", "x7", Duration::from_secs(90)).unwrap();
        let job = serde_json::to_value(job).unwrap();
        assert_eq!(job["metadata"]["namespace"], "kube-system");
        assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 0);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], DEADLINE);
        let pod = &job["spec"]["template"];
        assert_eq!(pod["spec"]["nodeName"], "worker-1");
        assert_eq!(
            pod["spec"]["containers"][0]["command"],
            serde_json::json!(["/tracer", "agent", "--lease=1m30s"])
        );
        assert_eq!(pod["metadata"]["labels"][INSTANCE], "x7");
        assert_ne!(
            pod["metadata"]["labels"], template["metadata"]["labels"],
            "it does not belong to the DaemonSet"
        );
        assert_eq!(pod["metadata"]["annotations"], template["metadata"]["annotations"]);
        for same in ["hostPID", "affinity", "tolerations", "automountServiceAccountToken"] {
            assert_eq!(pod["spec"][same], template["spec"][same], "{same}");
        }
        let context = "securityContext";
        assert_eq!(pod["spec"]["containers"][0][context], template["spec"]["containers"][0][context]);
    }
}
