//! What may be executed in the agents' pods, where the API server enforces it: the policy of `deploy/restrict-exec/`.
//!
//! It holds for everybody, and for a whole namespace, which must be the agents' own therefore.

use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use serde_json::Value;

use crate::{kubectl::manifests::parse, sanitize};

const POLICY: &str = include_str!("../../../deploy/restrict-exec/policy.yaml");
const BINDING: &str = include_str!("../../../deploy/restrict-exec/binding.yaml");
/// By which a namespace is selected: the API server gives it to each.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The policy, and what puts it into force.
#[derive(Clone, Debug)]
pub(super) struct Restriction {
    /// What is allowed.
    pub(super) policy: ValidatingAdmissionPolicy,
    /// Where.
    pub(super) binding: ValidatingAdmissionPolicyBinding,
}

impl Restriction {
    /// That of `deploy/restrict-exec/`, for this namespace.
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

/// What both objects are called. They belong to no namespace, so that of the agents is in their name.
pub(super) fn name(namespace: &str) -> String {
    format!("{namespace}-restrict-exec")
}

/// As kubectl calls them, in the order of [`Restriction::documents`].
pub(super) fn names(namespace: &str) -> [String; 2] {
    let name = sanitize::line(&name(namespace));
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
    fn the_types_of_kubernetes_have_a_place_for_every_field() {
        let documents = Restriction::new("tracer").unwrap().documents().unwrap();
        assert_eq!(documents, [POLICY, BINDING].map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap()));
    }

    #[test]
    fn another_namespace_has_a_policy_of_its_own() {
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
