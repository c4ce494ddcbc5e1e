//! `kubectl tracer deploy` and `undeploy`: server-side apply of the objects of `deploy/`, and their removal.

mod removal;
mod rollout;

use std::{fmt::Debug, io::Write as _, ops::Range, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt as _;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::DaemonSet,
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::debug;

use crate::{
    error::Usage,
    kubectl::{
        agents,
        args::{Common, DeployArgs, DryRun, NodesArgs, ObjectFormat, UndeployArgs},
        cluster::{Cluster, problem},
        image,
        manifests::Manifests,
        nodes::UnsupportedNodes,
        restriction::{self, Restriction},
        text,
    },
    output, sanitize,
    sys::stderr::status,
};

/// The field manager: fields that are no longer applied are removed.
const MANAGER: &str = "kubectl-tracer";
/// The name of the `ServiceAccount` and of the `DaemonSet`.
const AGENTS: &str = "tracer";
/// The label of what `deploy` has created.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "tracer");

/// `kubectl tracer deploy`.
pub(super) async fn deploy(args: &DeployArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let namespace = common.cluster.tracer_namespace();
    let mut manifests = Manifests::new(namespace, args.image.as_deref())
        .map_err(|error| Usage(format!("--image: {error}")))?;
    manifests.confine(args.seccomp_profile.as_ref(), args.selinux_type.as_deref())?;
    manifests.restriction = args.restrict_exec.then(|| Restriction::new(namespace)).transpose()?;
    if args.dry_run == DryRun::Client {
        print(&manifests, 0..3, args.output, "created (dry run)")?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run == DryRun::None {
        image::check(args.image.as_deref()).map_err(Usage)?;
    }
    let client = Cluster::find(&common.cluster)?.client;
    let mut params = PatchParams::apply(MANAGER).force();
    let done = if args.dry_run == DryRun::Server {
        params = params.dry_run();
        "serverside-applied (server dry run)"
    } else {
        "serverside-applied"
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut existing = namespaces.get_opt(namespace).await.map_err(|error| refused("namespace", &error))?;
    if args.dry_run == DryRun::None && existing.as_ref().is_some_and(is_terminating) {
        let [of_namespace, ..] = kubectl_names(namespace);
        wait_terminated(&namespaces, namespace, &of_namespace, args.wait.timeout).await?;
        existing = None;
    }
    let applied = match &existing {
        Some(existing) if !is_ours(existing) => 1..3,
        // A dry run creates no namespace for the others.
        None if args.dry_run == DryRun::Server => 0..1,
        _ => 0..3,
    };
    if manifests.restriction.is_some() && applied == (1..3) {
        bail!(
            "--restrict-exec would restrict all pods of the namespace {namespace:?}, which tracer has not created: select \
             another one with --tracer-namespace"
        );
    }
    if applied.contains(&0) {
        apply(&namespaces, &manifests.namespace, &params).await?;
    } else {
        status(&format!(
            "the namespace {} already exists and is not changed: it must permit privileged pods",
            text::line(namespace)
        ));
    }
    if applied.contains(&1) {
        apply(&Api::namespaced(client.clone(), namespace), &manifests.account, &params).await?;
        // Before the agents, so that they are never without it.
        if let Some(Restriction { policy, binding }) = &manifests.restriction {
            let old = "--restrict-exec requires Kubernetes 1.30 or newer with ValidatingAdmissionPolicy";
            apply(&Api::all(client.clone()), policy, &params).await.context(old)?;
            apply(&Api::all(client.clone()), binding, &params).await?;
        }
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let before = api.get_opt(AGENTS).await.map_err(|error| refused("daemonset", &error))?;
        if args.dry_run == DryRun::None && before.as_ref().is_some_and(is_terminating) {
            let [.., of_agents] = kubectl_names(namespace);
            wait_terminated(&api, AGENTS, &of_agents, args.wait.timeout).await?;
        }
        apply(&api, &manifests.agents, &params).await?;
    } else {
        status(&format!(
            "no dry run of the other objects: the namespace {} does not exist",
            text::line(namespace)
        ));
    }
    print(&manifests, applied, args.output, done)?;
    if args.dry_run == DryRun::None && args.wait.wait {
        UnsupportedNodes::find(&client, &NodesArgs::all()).await.report();
        rollout::wait(&client, namespace, args.wait.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply<K>(api: &Api<K>, object: &K, params: &PatchParams) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    let applied = api.patch(name, params, &Patch::Apply(object)).await;
    applied.map(drop).map_err(|error| refused(&K::kind(&()), &error))
}

/// The error of a request that was refused.
fn refused(what: &str, error: &kube::Error) -> anyhow::Error {
    anyhow!("{}: {}", what.to_lowercase(), problem(error))
}

/// Whether an object is being deleted.
fn is_terminating<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Waits until an object that is being deleted is gone: what is applied to it would be deleted with it.
async fn wait_terminated<K>(
    api: &Api<K>,
    name: &str,
    kubectl_name: &str,
    timeout: Duration,
) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    status(&format!("{kubectl_name} is being deleted: waiting until it is gone"));
    let late =
        |_| anyhow!("{kubectl_name} is still being deleted after {}", humantime::format_duration(timeout));
    tokio::time::timeout(timeout, wait_gone(api, name)).await.map_err(late)?
}

/// Whether `deploy` has created an object.
fn is_ours<K: Resource>(object: &K) -> bool {
    let (key, value) = PART_OF;
    object.meta().labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
}

/// Prints some of the objects as kubectl does.
fn print(
    manifests: &Manifests,
    which: Range<usize>,
    output: Option<ObjectFormat>,
    done: &str,
) -> anyhow::Result<()> {
    let namespace = manifests.namespace.metadata.name.as_deref().unwrap_or_default();
    let mut documents = manifests.documents()?[which.clone()].to_vec();
    let mut names = kubectl_names(namespace)[which.clone()].to_vec();
    if let Some(restriction) = manifests.restriction.as_ref().filter(|_| which.end == 3) {
        documents.extend(restriction.documents()?);
        names.extend(restriction::names(namespace));
    }
    let names = names.iter().map(|name| sanitize::line(name));
    let mut text = Vec::new();
    match output {
        Some(ObjectFormat::Yaml) => {
            for (index, document) in documents.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(b"---\n");
                }
                serde_yaml_ng::to_writer(&mut text, document)?;
            }
        }
        Some(ObjectFormat::Kyaml) => {
            for document in &documents {
                output::kyaml::write(document, &mut text)?;
                text.push(b'\n');
            }
        }
        Some(ObjectFormat::Json) => {
            serde_json::to_writer_pretty(
                &mut text,
                &json!({"apiVersion": "v1", "kind": "List", "items": documents}),
            )?;
            text.push(b'\n');
        }
        Some(ObjectFormat::Name) => names.into_iter().try_for_each(|name| writeln!(text, "{name}"))?,
        None => names.into_iter().try_for_each(|name| writeln!(text, "{name} {done}"))?,
    }
    std::io::stdout().lock().write_all(&text).context("writing to standard output")
}

/// The names of the objects, as kubectl prints them.
fn kubectl_names(namespace: &str) -> [String; 3] {
    [format!("namespace/{namespace}"), "serviceaccount/tracer".into(), "daemonset.apps/tracer".into()]
}

/// `kubectl tracer undeploy`.
pub(super) async fn undeploy(args: &UndeployArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let namespace = common.cluster.tracer_namespace();
    let client = Cluster::find(&common.cluster)?.client;
    let [of_namespace, of_account, of_agents] = kubectl_names(namespace);
    // The agents first: nothing else runs.
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let within = [delete(&agents, AGENTS, &of_agents).await?, delete(&accounts, AGENTS, &of_account).await?];
    let of_itself = if within.contains(&Deleted::NotOurs) {
        // They would be deleted with it.
        status(&format!("{of_namespace} is kept: it has objects that tracer has not created"));
        Deleted::NotOurs
    } else {
        delete(&namespaces, namespace, &of_namespace).await?
    };
    unrestrict(&client, namespace).await?;
    if within == [Deleted::Absent; 2] && of_itself == Deleted::Absent {
        status(&format!("nothing is deployed in namespace {}", text::line(namespace)));
    }
    if args.wait.wait {
        let removal = removal::Removal {
            client: &client,
            namespace,
            agents: (within[0] == Deleted::Yes).then_some(&agents),
            namespaces: (of_itself == Deleted::Yes).then_some(&namespaces),
        };
        removal.wait(args.wait.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Deletes the policy of `--restrict-exec`, if it exists and the user is authorized to get it.
async fn unrestrict(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let name = restriction::name(namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    match policies.get_opt(&name).await {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => {}
        Err(error) => {
            debug!("looking for the policy of --restrict-exec: {}", problem(&error));
            return Ok(());
        }
    }
    let [of_policy, of_binding] = restriction::names(namespace);
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    delete(&bindings, &name, &of_binding).await?;
    delete(&policies, &name, &of_policy).await?;
    Ok(())
}

/// Whether an object was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deleted {
    Yes,
    Absent,
    /// `deploy` has not created it.
    NotOurs,
}

/// Deletes an object that `deploy` has created. The garbage collector deletes its dependents in the background: a deletion
/// in the foreground would leave a finalizer on an API server without controllers.
async fn delete<K>(api: &Api<K>, name: &str, kubectl_name: &str) -> anyhow::Result<Deleted>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let failed = |error| anyhow!("{kubectl_name}: {}", problem(&error));
    let Some(object) = api.get_opt(name).await.map_err(failed)? else { return Ok(Deleted::Absent) };
    if !is_ours(&object) {
        status(&format!(
            "{kubectl_name} is kept: tracer has not created it (no label {}={})",
            PART_OF.0, PART_OF.1
        ));
        return Ok(Deleted::NotOurs);
    }
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        // Another object of this name may have been created since.
        preconditions: Some(Preconditions { uid: object.meta().uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        Ok(_) => {
            let name = sanitize::line(kubectl_name);
            writeln!(std::io::stdout().lock(), "{name} deleted").context("writing to standard output")?;
            Ok(Deleted::Yes)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Deleted::Absent),
        Err(error) => Err(failed(error)),
    }
}

/// Returns when an object no longer exists.
async fn wait_gone<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut changes = std::pin::pin!(watcher::watch_object(api.clone(), name).default_backoff());
    while let Some(change) = changes.next().await {
        match change {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) => debug!("watching {name}: {}", text::line(&agents::problem(&error))),
        }
    }
    bail!("the watch on {name} ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_with_the_label_are_ours() {
        let namespace =
            |labels| serde_json::from_value::<Namespace>(json!({"metadata": {"labels": labels}})).unwrap();
        assert!(is_ours(&namespace(json!({"app.kubernetes.io/part-of": "tracer"}))));
        assert!(!is_ours(&namespace(json!({"app.kubernetes.io/part-of": "other"}))));
        assert!(!is_ours(&namespace(serde_json::Value::Null)));
        let manifests = Manifests::new("tracer", None).unwrap();
        assert!(is_ours(&manifests.namespace) && is_ours(&manifests.account) && is_ours(&manifests.agents));
    }
}
