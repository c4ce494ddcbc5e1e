//! The storage of the API server: objects by path, their changes, and the selection of a request.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A parsed path of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The collection, such as `/api/v1/namespaces/NAMESPACE/pods`.
    pub(crate) collection: String,
    /// Its last segment, such as `pods`.
    pub(crate) resource: String,
    /// The `apiVersion` of its objects: `v1` or `GROUP/VERSION`.
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    /// Such as `exec`.
    pub(crate) subresource: Option<String>,
}

impl Place {
    /// Parses a path by <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (prefix, rest) = words.split_at_checked(if words[0] == "api" { 2 } else { 3 })?;
        let (namespace, resource, rest) = match rest {
            ["namespaces", namespace, resource, rest @ ..] => (Some(*namespace), *resource, rest),
            [resource, rest @ ..] => (None, *resource, rest),
            [] => return None,
        };
        let within = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        Some(Self {
            collection: format!("/{}{within}/{resource}", prefix.join("/")),
            resource: resource.to_owned(),
            version: prefix[1..].join("/"),
            namespace: namespace.map(str::to_owned),
            name: rest.first().map(ToString::to_string),
            subresource: rest.get(1).map(ToString::to_string),
        })
    }

    /// The kind of its objects.
    pub(crate) fn kind(&self) -> &'static str {
        match self.resource.as_str() {
            "daemonsets" => "DaemonSet",
            "deployments" => "Deployment",
            "events" => "Event",
            "jobs" => "Job",
            "namespaces" => "Namespace",
            "nodes" => "Node",
            "pods" => "Pod",
            "replicasets" => "ReplicaSet",
            "replicationcontrollers" => "ReplicationController",
            "serviceaccounts" => "ServiceAccount",
            "statefulsets" => "StatefulSet",
            "validatingadmissionpolicies" => "ValidatingAdmissionPolicy",
            "validatingadmissionpolicybindings" => "ValidatingAdmissionPolicyBinding",
            other => panic!("unexpected resource {other}"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection)
    }
}

/// A selection of objects of a collection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    labels: Vec<(String, String)>,
    fields: Vec<(String, String)>,
}

impl Selection {
    /// Parses `labelSelector` and `fieldSelector`; only equalities are supported.
    pub(crate) fn new(labels: Option<&str>, fields: Option<&str>) -> Self {
        let pairs = |text: Option<&str>| {
            let pairs = text.unwrap_or_default().split(',').filter(|pair| !pair.is_empty());
            let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.into(), value.into()));
            pairs.map(|text| pair(text).expect("an equality")).collect()
        };
        Self { labels: pairs(labels), fields: pairs(fields) }
    }

    pub(crate) fn has(&self, object: &Value) -> bool {
        let field = |path: &str| path.split('.').fold(object, |value, key| &value[key]);
        self.labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == *value)
            && self.fields.iter().all(|(path, value)| field(path).as_str().unwrap_or_default() == value)
    }
}

/// All objects. Each change increments the version.
#[derive(Default)]
pub(crate) struct Objects {
    by_path: BTreeMap<String, Value>,
    log: Vec<(&'static str, String, Value)>,
    /// The last applied objects, by manager and path.
    applied: BTreeMap<(String, String), Value>,
    made: u32,
}

impl Objects {
    /// The latest version.
    pub(crate) fn version(&self) -> usize {
        self.log.len()
    }

    /// The change after a version: its type, the path and the object.
    pub(crate) fn after(&self, version: usize) -> &(&'static str, String, Value) {
        &self.log[version]
    }

    /// A unique number.
    pub(crate) fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        self.by_path.get(path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.by_path.iter()
    }

    /// The selected objects of a collection.
    pub(crate) fn list(&self, collection: &str, selection: &Selection) -> Vec<&Value> {
        let members =
            self.by_path.iter().filter(|(path, _)| is_in(path, collection) || is_across(path, collection));
        members.map(|(_, object)| object).filter(|object| selection.has(object)).collect()
    }

    /// Stores an object. Without a difference there is no new version.
    pub(crate) fn put(&mut self, path: &str, mut object: Value) -> Value {
        let before = self.by_path.get(path).cloned();
        let generation = match &before {
            None => {
                let number = self.number();
                if object["metadata"]["uid"].is_null() {
                    object["metadata"]["uid"] = json!(format!("uid-{number}"));
                }
                object["metadata"]["creationTimestamp"] = json!("2026-11-20T22:15:01Z");
                1
            }
            Some(before) => {
                let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
                generation + u64::from(before["spec"] != object["spec"])
            }
        };
        object["metadata"]["generation"] = json!(generation);
        if before.as_ref() == Some(&object) {
            return object;
        }
        object["metadata"]["resourceVersion"] = json!((self.log.len() + 1).to_string());
        self.by_path.insert(path.to_owned(), object.clone());
        let change = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.log.push((change, path.to_owned(), object.clone()));
        object
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, path: &str) -> Option<Value> {
        let mut object = self.by_path.remove(path)?;
        self.applied.retain(|(_, of), _| of != path);
        object["metadata"]["resourceVersion"] = json!((self.log.len() + 1).to_string());
        self.log.push(("DELETED", path.to_owned(), object.clone()));
        Some(object)
    }

    /// The paths of the dependents of the object with this uid.
    pub(crate) fn dependents(&self, uid: &Value) -> Vec<String> {
        let is_owner = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
        };
        self.by_path.iter().filter(|(_, object)| is_owner(object)).map(|(path, _)| path.clone()).collect()
    }

    /// The result of server-side apply: fields that the manager applies are set, those that it no longer applies are
    /// removed, those of other managers are kept. Lists are atomic.
    pub(crate) fn merged(&self, path: &str, manager: &str, asked: &Value) -> Value {
        let mut object = self.by_path.get(path).cloned().unwrap_or_else(|| json!({}));
        if let Some(before) = self.applied.get(&(manager.to_owned(), path.to_owned())) {
            remove_fields(&mut object, before, asked);
        }
        merge(&mut object, asked);
        let managers = &mut object["metadata"]["managedFields"];
        let own = json!({"manager": manager, "operation": "Apply"});
        match managers.as_array_mut() {
            Some(managers) if managers.contains(&own) => {}
            Some(managers) => managers.push(own),
            None => *managers = json!([own]),
        }
        object
    }

    /// Records what a manager has applied.
    pub(crate) fn note(&mut self, path: &str, manager: &str, asked: Value) {
        self.applied.insert((manager.to_owned(), path.to_owned()), asked);
    }
}

/// Whether a path is that of an object in the collection.
pub(crate) fn is_in(path: &str, collection: &str) -> bool {
    path.strip_prefix(collection)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| !name.contains('/'))
}

/// Whether a path is that of an object in a collection over all namespaces, such as `/api/v1/pods`.
fn is_across(path: &str, collection: &str) -> bool {
    let Some((prefix, resource)) = collection.rsplit_once('/') else { return false };
    let within = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("/namespaces/"));
    let words: Vec<&str> = within.map(|rest| rest.split('/').collect()).unwrap_or_default();
    matches!(words[..], [_, of, _] if of == resource)
}

fn merge(object: &mut Value, asked: &Value) {
    match (object, asked) {
        (Value::Object(object), Value::Object(asked)) => {
            for (key, asked) in asked {
                merge(object.entry(key).or_insert(Value::Null), asked);
            }
        }
        (object, Value::Object(asked)) => {
            *object = Value::Object(Map::new());
            merge(object, &Value::Object(asked.clone()));
        }
        (object, asked) => *object = asked.clone(),
    }
}

/// Removes the fields that are in `before` and not in `asked`.
fn remove_fields(object: &mut Value, before: &Value, asked: &Value) {
    let (Value::Object(object), Value::Object(before)) = (object, before) else { return };
    for (key, before) in before {
        match (asked.get(key), object.get_mut(key)) {
            (None, _) => drop(object.remove(key)),
            (Some(asked), Some(field)) => remove_fields(field, before, asked),
            (Some(_), None) => {}
        }
    }
}
