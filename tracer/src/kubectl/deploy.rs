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
        args::{Common, DeployArgs, DryRun, NodesArgs, Printed, UndeployArgs},
        cluster::{Cluster, problem},
        confinement::image_problem,
        manifests::Manifests,
        nodes::Unable,
        plain, restriction,
        restriction::Restriction,
    },
    output,
    sys::stderr::status,
};

/// Whose fields they are: what is applied again with less in it is taken away.
const MANAGER: &str = "kubectl-tracer";
/// The name of the account, and of the `DaemonSet`.
const AGENTS: &str = "tracer";
/// By which what was deployed is told from what others have made.
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
    let image = manifests.image()?;
    if let Some(problem) = image_problem(image).filter(|_| args.dry_run == DryRun::None) {
        let image = plain::line(image);
        return Err(Usage(format!(
            "the nodes cannot pull {image}: {problem}; push the image to a registry and name it by --image \
             REGISTRY/NAME:TAG or --image REGISTRY/NAME@DIGEST"
        ))
        .into());
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
    let mut there = namespaces.get_opt(namespace).await.map_err(|error| refused("namespace", &error))?;
    if args.dry_run == DryRun::None && there.as_ref().is_some_and(is_leaving) {
        let [of_namespace, ..] = names(namespace);
        outlast(&namespaces, namespace, &of_namespace, args.wait.timeout).await?;
        there = None;
    }
    let applied = match &there {
        Some(there) if !is_ours(there) => 1..3,
        // Where nothing is made there is no namespace for the others.
        None if args.dry_run == DryRun::Server => 0..1,
        _ => 0..3,
    };
    if manifests.restriction.is_some() && applied == (1..3) {
        bail!(
            "--restrict-exec would hold for all pods of the namespace {namespace:?}, which others have made: name one of \
               tracer's own by --tracer-namespace"
        );
    }
    if applied.contains(&0) {
        apply(&namespaces, &manifests.namespace, &params).await?;
    } else {
        status(&format!(
            "the namespace {} is there already and stays as it is: it must permit privileged pods",
            plain::line(namespace)
        ));
    }
    if applied.contains(&1) {
        apply(&Api::namespaced(client.clone(), namespace), &manifests.account, &params).await?;
        // Before the agents, so that there is no time in which anything else may be executed in them.
        if let Some(Restriction { policy, binding }) = &manifests.restriction {
            let old = "--restrict-exec takes Kubernetes 1.30 or newer with ValidatingAdmissionPolicy";
            apply(&Api::all(client.clone()), policy, &params).await.context(old)?;
            apply(&Api::all(client.clone()), binding, &params).await?;
        }
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let before = api.get_opt(AGENTS).await.map_err(|error| refused("daemonset", &error))?;
        if args.dry_run == DryRun::None && before.as_ref().is_some_and(is_leaving) {
            let [.., of_agents] = names(namespace);
            outlast(&api, AGENTS, &of_agents, args.wait.timeout).await?;
        }
        apply(&api, &manifests.agents, &params).await?;
    } else {
        status(&format!(
            "the API server cannot be asked what would come of the others: the namespace {} is not there",
            plain::line(namespace)
        ));
    }
    print(&manifests, applied, args.output, done)?;
    if args.dry_run == DryRun::None && args.wait.wait {
        Unable::find(&client, &NodesArgs::all()).await.say();
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

/// What the API server did not do, with its reason.
fn refused(what: &str, error: &kube::Error) -> anyhow::Error {
    anyhow!("{}: {}", what.to_lowercase(), plain::line(&problem(error)))
}

/// Whether an object is being deleted.
fn is_leaving<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Waits until an object is gone that is being deleted: what is applied to it would go with it.
async fn outlast<K>(api: &Api<K>, name: &str, called: &str, patience: Duration) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    status(&format!("{called} is being deleted: waiting until it is gone"));
    let late = |_| anyhow!("{called} is still being deleted after {}", humantime::format_duration(patience));
    tokio::time::timeout(patience, gone(api, name)).await.map_err(late)?
}

fn is_ours<K: Resource>(object: &K) -> bool {
    let (key, value) = PART_OF;
    object.meta().labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
}

/// Prints some of the objects as kubectl does.
fn print(
    manifests: &Manifests,
    which: Range<usize>,
    output: Option<Printed>,
    done: &str,
) -> anyhow::Result<()> {
    let namespace = manifests.namespace.metadata.name.as_deref().unwrap_or_default();
    let mut documents = manifests.documents()?[which.clone()].to_vec();
    let mut names = names(namespace)[which.clone()].to_vec();
    if let Some(restriction) = manifests.restriction.as_ref().filter(|_| which.end == 3) {
        documents.extend(restriction.documents()?);
        names.extend(restriction::names(namespace));
    }
    let mut text = Vec::new();
    match output {
        Some(Printed::Yaml) => {
            for (index, document) in documents.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(b"---\n");
                }
                serde_yaml_ng::to_writer(&mut text, document)?;
            }
        }
        Some(Printed::Kyaml) => {
            for document in &documents {
                output::kyaml::write(document, &mut text)?;
                text.push(b'\n');
            }
        }
        Some(Printed::Json) => {
            serde_json::to_writer_pretty(
                &mut text,
                &json!({"apiVersion": "v1", "kind": "List", "items": documents}),
            )?;
            text.push(b'\n');
        }
        Some(Printed::Name) => names.iter().try_for_each(|name| writeln!(text, "{name}"))?,
        None => names.iter().try_for_each(|name| writeln!(text, "{name} {done}"))?,
    }
    std::io::stdout().lock().write_all(&text).context("writing to standard output")
}

/// As kubectl calls them.
fn names(namespace: &str) -> [String; 3] {
    [
        format!("namespace/{}", plain::line(namespace)),
        "serviceaccount/tracer".into(),
        "daemonset.apps/tracer".into(),
    ]
}

/// `kubectl tracer undeploy`.
pub(super) async fn undeploy(args: &UndeployArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let namespace = common.cluster.tracer_namespace();
    let client = Cluster::find(&common.cluster)?.client;
    let [of_namespace, of_account, of_agents] = names(namespace);
    // The agents first: they are what runs.
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let within = [delete(&agents, AGENTS, &of_agents).await?, delete(&accounts, AGENTS, &of_account).await?];
    let around = if within.contains(&Was::Others) {
        // They would go with it.
        status(&format!("{of_namespace} stays, with what others have made in it"));
        Was::Others
    } else {
        delete(&namespaces, namespace, &of_namespace).await?
    };
    unrestrict(&client, namespace).await?;
    if within == [Was::Absent; 2] && around == Was::Absent {
        status(&format!("nothing is deployed in the namespace {}", plain::line(namespace)));
    }
    if args.wait.wait {
        let leaving = removal::Leaving {
            client: &client,
            namespace,
            agents: (within[0] == Was::Deleted).then_some(&agents),
            around: (around == Was::Deleted).then_some(&namespaces),
        };
        leaving.wait(args.wait.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes away what restricts the agents, if that is there. Whoever may not look for it need not.
async fn unrestrict(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let name = restriction::name(namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    match policies.get_opt(&name).await {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => {}
        Err(error) => {
            debug!("whether exec is restricted is not known: {}", plain::line(&problem(&error)));
            return Ok(());
        }
    }
    let [of_policy, of_binding] = restriction::names(namespace);
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    delete(&bindings, &name, &of_binding).await?;
    delete(&policies, &name, &of_policy).await?;
    Ok(())
}

/// What was found where an object was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Absent,
    Deleted,
    /// Others have made it, and it stays.
    Others,
}

/// Deletes an object, if it is there and ours, and says so. What depends on it is deleted by the cluster's garbage
/// collector.
async fn delete<K>(api: &Api<K>, name: &str, called: &str) -> anyhow::Result<Was>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let failed = |error| anyhow!("{called}: {}", plain::line(&problem(&error)));
    let Some(object) = api.get_opt(name).await.map_err(failed)? else { return Ok(Was::Absent) };
    if !is_ours(&object) {
        status(&format!(
            "{called} stays: it has no label {}={}, so others have made it",
            PART_OF.0, PART_OF.1
        ));
        return Ok(Was::Others);
    }
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        // What was looked at is what is deleted.
        preconditions: Some(Preconditions { uid: object.meta().uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        Ok(_) => {
            writeln!(std::io::stdout().lock(), "{called} deleted").context("writing to standard output")?;
            Ok(Was::Deleted)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Was::Absent),
        Err(error) => Err(failed(error)),
    }
}

/// Returns when there is no such object any more.
pub(super) async fn gone<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut changes = std::pin::pin!(watcher::watch_object(api.clone(), name).default_backoff());
    while let Some(change) = changes.next().await {
        match change {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) => debug!("{name} is not seen for now: {}", plain::line(&agents::problem(&error))),
        }
    }
    bail!("{name} is not seen any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_label_is_ours() {
        let namespace =
            |labels| serde_json::from_value::<Namespace>(json!({"metadata": {"labels": labels}})).unwrap();
        assert!(is_ours(&namespace(json!({"app.kubernetes.io/part-of": "tracer"}))));
        assert!(!is_ours(&namespace(json!({"app.kubernetes.io/part-of": "other"}))));
        assert!(!is_ours(&namespace(serde_json::Value::Null)));
        let manifests = Manifests::new("tracer", None).unwrap();
        assert!(is_ours(&manifests.namespace) && is_ours(&manifests.account) && is_ours(&manifests.agents));
    }
}
