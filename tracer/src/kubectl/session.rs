//! `kubectl tracer trace` and `list-containers`: one session over the nodes of a cluster. `start` finds the agents, `run` is
//! the event loop, `nodes` keeps the state of each node, `summary` accounts for all events at the end.

mod nodes;
mod run;
mod start;
mod summary;

use std::{process::ExitCode, sync::Arc, time::Duration};

use crate::{
    cli::{
        args::{ListArgs, NodeArgs, SelectionArgs, TraceArgs},
        config, output_help,
    },
    kinds::Kinds,
    kubectl::{
        args::{Common, NodesArgs},
        cluster::Cluster,
        ephemeral::with_agents,
        node::Decoder,
        node_command::NodeCommand,
        text,
        workload::Workload,
        writer::{EventView, MakeRenderer, View},
    },
    model::{Pattern, name::Name},
    output::{ContainerRenderer, ListOf},
};
use run::Session;

/// `kubectl tracer trace`.
pub(super) async fn trace(
    mut args: TraceArgs,
    nodes: &NodesArgs,
    common: &Common,
) -> anyhow::Result<ExitCode> {
    if output_help::print_if_requested(&args, ListOf::Cluster)? {
        return Ok(ExitCode::SUCCESS);
    }
    // Usage errors are reported before anything is sent.
    nodes.check_image()?;
    let workload = Workload::take(&mut args.selection)?;
    let checked = config::trace(&args, &NodeArgs::default(), common.log.log().is_debug())?;
    let (cluster, namespaces) = cluster_and_namespaces(&args.selection, common)?;
    let options = select(&mut args.selection, workload, &cluster, &namespaces).await?;
    let kinds = checked.kinds;
    let plan = Plan {
        command: NodeCommand::trace(&args, &namespaces, nodes.lease, common.log.log()),
        namespaces: named(&namespaces),
        options,
        content: Content::Events(Arc::clone(&kinds)),
        max_events: checked.max_events,
        timeout: checked.limits.timeout,
        once: false,
    };
    let view = |widest: &str| {
        let (output, timestamps, node) = (args.output.clone(), args.timestamps, widest.to_owned());
        let make: MakeRenderer = Box::new(move |kinds| config::renderer(&output, timestamps, kinds, &node));
        EventView::new(&kinds, make).map(View::Events).map_err(anyhow::Error::msg)
    };
    with_agents(&cluster, nodes, common, async |fleet, end| {
        Session::start(plan, &cluster, nodes, fleet, view, end).await?.run().await
    })
    .await
}

/// `kubectl tracer list-containers`.
pub(super) async fn list(mut args: ListArgs, nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    if output_help::print_if_requested(&args, ListOf::Cluster)? {
        return Ok(ExitCode::SUCCESS);
    }
    nodes.check_image()?;
    let workload = Workload::take(&mut args.selection)?;
    let checked = config::list(&args, &NodeArgs::default(), common.log.log().is_debug())?;
    let (cluster, namespaces) = cluster_and_namespaces(&args.selection, common)?;
    let options = select(&mut args.selection, workload, &cluster, &namespaces).await?;
    let if_empty = (!args.watch).then(|| no_resources(&named(&namespaces)));
    let plan = Plan {
        command: NodeCommand::list(&args, &namespaces, nodes.lease, common.log.log()),
        namespaces: named(&namespaces),
        options,
        content: Content::Containers,
        max_events: None,
        timeout: checked.limits.timeout,
        once: !args.watch,
    };
    let view = |widest: &str| {
        let (output, look) = (&args.output.output, config::look(&args.output));
        let renderer = ContainerRenderer::new(ListOf::Cluster, output, widest, look, args.watch);
        let renderer = renderer.map_err(anyhow::Error::msg)?;
        Ok(View::Containers { renderer, pending: Some(Vec::new()), if_empty })
    };
    with_agents(&cluster, nodes, common, async |fleet, end| {
        Session::start(plan, &cluster, nodes, fleet, view, end).await?.run().await
    })
    .await
}

/// The cluster, and the selected namespaces: none means all.
fn cluster_and_namespaces(
    selection: &SelectionArgs,
    common: &Common,
) -> anyhow::Result<(Cluster, Vec<String>)> {
    let cluster = Cluster::find(&common.cluster)?;
    let namespaces = match &selection.namespace[..] {
        _ if selection.all_namespaces => Vec::new(),
        [] => vec![cluster.namespace.clone()],
        given => given.to_vec(),
    };
    Ok((cluster, namespaces))
}

/// Replaces a workload by the labels of its pods. Returns the options that select containers, for messages.
async fn select(
    selection: &mut SelectionArgs,
    workload: Option<Workload>,
    cluster: &Cluster,
    namespaces: &[String],
) -> anyhow::Result<String> {
    let mut options = config::selection_options(selection, namespaces);
    if let (Some(workload), [namespace]) = (workload, namespaces) {
        options = format!("{options} -p {}", workload.text);
        selection.selector.push(workload.selector(&cluster.client, namespace).await?);
    }
    Ok(options)
}

/// The namespaces that a selection names, without those that it excludes.
fn named(namespaces: &[String]) -> Vec<String> {
    // An invalid selection was rejected before.
    Pattern::parse(namespaces, Name::of_namespace).unwrap_or_default().literals(Name::literal)
}

/// kubectl's message for an empty list.
fn no_resources(namespaces: &[String]) -> String {
    match namespaces {
        [] => "No resources found".to_owned(),
        [one] => format!("No resources found in {} namespace.", text::line(one)),
        all => format!("No resources found in {} namespaces.", text::names(all.iter().map(String::as_str))),
    }
}

/// What to run on the nodes.
struct Plan {
    command: NodeCommand,
    /// The namespaces that are selected by name.
    namespaces: Vec<String>,
    /// The options that select containers, for messages.
    options: String,
    content: Content,
    max_events: Option<u64>,
    timeout: Option<Duration>,
    /// Whether the command ends by itself.
    once: bool,
}

/// What the nodes send.
#[derive(Clone)]
enum Content {
    Events(Arc<Kinds>),
    Containers,
}

impl Content {
    /// Its name in reports of losses.
    fn hook(&self) -> Arc<str> {
        match self {
            Self::Events(kinds) => kinds.names().into(),
            Self::Containers => "containers".into(),
        }
    }

    /// What is done with a node.
    const fn participle(&self) -> &'static str {
        match self {
            Self::Events(_) => "traced",
            Self::Containers => "listed",
        }
    }

    fn decoder(&self, node: Arc<str>) -> Decoder {
        match self {
            Self::Events(kinds) => Decoder::new(node, Arc::clone(kinds)),
            Self::Containers => Decoder::new(node, Arc::default()),
        }
    }
}
