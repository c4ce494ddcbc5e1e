//! Admission by `ValidatingAdmissionPolicy` objects, whose CEL expressions are evaluated by another interpreter than
//! Kubernetes' own.

use std::collections::HashMap;

use cel::{Context, Program};
use serde_json::{Value, json};

/// A request for a subresource of a pod.
#[derive(Debug, Clone)]
pub struct PodRequest<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Such as `exec`.
    pub subresource: &'a str,
    /// `CONNECT`, or `UPDATE` of ephemeral containers.
    pub operation: &'a str,
    /// The object of the request, such as `PodExecOptions`.
    pub object: Value,
}

impl<'a> PodRequest<'a> {
    /// A request as by `kubectl exec`.
    pub fn exec(namespace: &'a str, command: &[impl AsRef<str>]) -> Self {
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "PodExecOptions", "stdin": true, "stdout": true, "stderr": true,
            "container": "tracer", "command": command,
        });
        Self { namespace, subresource: "exec", operation: "CONNECT", object }
    }
}

/// The reason why a policy with a binding denies a request; None if none does.
///
/// # Panics
/// If a policy or binding has an unsupported field.
pub fn denial(policies: &[Value], bindings: &[Value], request: &PodRequest<'_>) -> Option<String> {
    let in_force = bindings.iter().filter(|binding| selects(&binding["spec"]["matchResources"], request));
    in_force
        .filter(|binding| binding["spec"]["validationActions"] == json!(["Deny"]))
        .filter_map(|binding| {
            policies.iter().find(|policy| policy["metadata"]["name"] == binding["spec"]["policyName"])
        })
        .filter(|policy| concerns(&policy["spec"]["matchConstraints"], request))
        .find_map(|policy| denied_by(policy, request))
}

/// Only a selector by the name of the namespace is supported.
fn selects(constraints: &Value, request: &PodRequest<'_>) -> bool {
    let selector = constraints["namespaceSelector"].as_object().expect("a selector of namespaces");
    assert_eq!(selector.len(), 1, "{selector:?}");
    selector["matchLabels"] == json!({"kubernetes.io/metadata.name": request.namespace})
}

fn concerns(constraints: &Value, request: &PodRequest<'_>) -> bool {
    let resource = json!(format!("pods/{}", request.subresource));
    let has = |list: &Value, value: &Value| list.as_array().expect("a list").contains(value);
    let is_meant = |rule: &Value| {
        has(&rule["apiGroups"], &json!(""))
            && has(&rule["apiVersions"], &json!("*"))
            && has(&rule["operations"], &json!(request.operation))
            && has(&rule["resources"], &resource)
    };
    selects(constraints, request)
        && constraints["resourceRules"].as_array().expect("rules").iter().any(is_meant)
}

/// The message of the first validation that fails or cannot be evaluated.
fn denied_by(policy: &Value, request: &PodRequest<'_>) -> Option<String> {
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let mut context = Context::default();
    let facts = json!({"subResource": request.subresource, "operation": request.operation, "namespace": request.namespace});
    context.add_variable("request", &facts).expect("a value of CEL");
    context.add_variable("object", &request.object).expect("a value of CEL");
    let mut variables: HashMap<String, cel::Value> = HashMap::new();
    for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
        context.add_variable_from_value("variables", variables.clone());
        let name = variable["name"].as_str().expect("a name").to_owned();
        // The API server evaluates variables lazily, which makes no difference here.
        variables.insert(name, evaluate(&variable["expression"], &context).expect("a value"));
    }
    context.add_variable_from_value("variables", variables);
    let fails = |validation: &&Value| {
        !matches!(evaluate(&validation["expression"], &context), Ok(cel::Value::Bool(true)))
    };
    let failed = policy["spec"]["validations"].as_array().expect("validations").iter().find(fails)?;
    assert_eq!(failed["reason"], "Forbidden", "of {failed}");
    Some(failed["message"].as_str().expect("a message").to_owned())
}

fn evaluate(expression: &Value, context: &Context<'_, '_>) -> Result<cel::Value, cel::ExecutionError> {
    let text = expression.as_str().expect("an expression");
    let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    program.execute(context)
}
