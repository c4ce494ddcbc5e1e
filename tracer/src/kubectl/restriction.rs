//! The policy of `deploy/restrict-exec/`, by which the API server restricts what can be executed in the agents' pods.
//!
//! It applies to all users and to a whole namespace, which must therefore be the agents' own.

use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use serde_json::Value;

use crate::kubectl::manifests::parse;

const POLICY: &str = include_str!("../../../deploy/restrict-exec/policy.yaml");
const BINDING: &str = include_str!("../../../deploy/restrict-exec/binding.yaml");
/// A label that the API server gives to each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The policy and its binding.
#[derive(Clone, Debug)]
pub(super) struct Restriction {
    pub(super) policy: ValidatingAdmissionPolicy,
    pub(super) binding: ValidatingAdmissionPolicyBinding,
}

impl Restriction {
    /// The objects of `deploy/restrict-exec/`, for this namespace.
    pub(super) fn new(namespace: &str) -> anyhow::Result<Self> {
        let mut policy: ValidatingAdmissionPolicy = parse("restrict-exec/policy.yaml", POLICY)?;
        let mut binding: ValidatingAdmissionPolicyBinding = parse("restrict-exec/binding.yaml", BINDING)?;
        let name = name(namespace);
        let of_policy = policy.spec.as_mut().context("policy.yaml specifies nothing")?;
        let of_binding = binding.spec.as_mut().context("binding.yaml specifies nothing")?;
        for constraints in [&mut of_policy.match_constraints, &mut of_binding.match_resources] {
            select(constraints.as_mut(), namespace)?;
        }
        of_binding.policy_name = Some(name.clone());
        policy.metadata.name = Some(name.clone());
        binding.metadata.name = Some(name);
        Ok(Self { policy, binding })
    }

    /// Both, in the order in which they are applied.
    pub(super) fn documents(&self) -> anyhow::Result<[Value; 2]> {
        Ok([serde_json::to_value(&self.policy)?, serde_json::to_value(&self.binding)?])
    }
}

/// The name of both objects. They are cluster-scoped, so the name includes the namespace of the agents.
pub(super) fn name(namespace: &str) -> String {
    format!("{namespace}-restrict-exec")
}

/// Their names as kubectl prints them, in the order of [`Restriction::documents`].
pub(super) fn names(namespace: &str) -> [String; 2] {
    let name = name(namespace);
    ["policy", "policybinding"]
        .map(|kind| format!("validatingadmission{kind}.admissionregistration.k8s.io/{name}"))
}

fn select(constraints: Option<&mut MatchResources>, namespace: &str) -> anyhow::Result<()> {
    let selector = constraints.and_then(|constraints| constraints.namespace_selector.as_mut());
    let labels = selector.context("no namespace is selected")?.match_labels.get_or_insert_default();
    labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_survive_a_round_trip_through_the_types_of_kubernetes() {
        let documents = Restriction::new("tracer").unwrap().documents().unwrap();
        assert_eq!(documents, [POLICY, BINDING].map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap()));
    }

    #[test]
    fn each_namespace_has_its_own_policy() {
        let [policy, binding] = Restriction::new("other").unwrap().documents().unwrap();
        for document in [&policy, &binding] {
            assert_eq!(document["metadata"]["name"], "other-restrict-exec");
        }
        assert_eq!(binding["spec"]["policyName"], "other-restrict-exec");
        for constraints in [&policy["spec"]["matchConstraints"], &binding["spec"]["matchResources"]] {
            assert_eq!(constraints["namespaceSelector"]["matchLabels"][NAMESPACE_NAME], "other");
        }
    }
}
