//! Completion for `kubectl tracer <TAB>`: kubectl runs `kubectl_complete-tracer` with the words after `kubectl tracer`, the
//! last of which is to be completed, and expects candidates and a directive in the format of cobra's `__complete`
//! (<https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/plugin/plugin_completion.go>).

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::Write as _,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{self, ArgValueCompleter, CompletionCandidate};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Client, Resource, api::ListParams, config::Kubeconfig};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    kubectl::{
        args::{Args, ClusterArgs},
        cluster::Cluster,
        text,
    },
    model::{
        Pattern,
        name::{Name, PodName},
        pattern::Item,
    },
    sanitize,
    sys::thread::local_runtime,
};

/// The first argument of a request for completion.
const REQUEST: &str = "__complete";
/// How long the API server may take: the user waits.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most objects that are listed.
const OBJECTS_MAX: u32 = 500;
/// Directives of cobra: whether to complete file names if there is no candidate.
const FILES: u8 = 0;
const NO_FILES: u8 = 4;

/// The words to complete, if completion is requested.
pub(super) fn requested(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    arguments.next()?;
    (arguments.next()? == REQUEST).then(|| arguments.collect())
}

/// Prints the candidates. That there are none, or that the server does not respond in time, is no error.
pub(super) fn run(words: &[OsString]) -> ExitCode {
    // Messages would appear within the command line.
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
    let (text, directive) = complete(words);
    let written = std::io::stdout().lock().write_all(format!("{text}:{directive}\n").as_bytes());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The candidates, one per line, each with a tab and its help, and the directive.
fn complete(words: &[OsString]) -> (String, u8) {
    let (last, before) =
        words.split_last().map_or((OsString::new(), &[][..]), |(last, rest)| (last.clone(), rest));
    if takes_file(before.last().map_or(&*last, |word| &**word)) || takes_file(&last) {
        return (String::new(), FILES);
    }
    let values = Arc::new(Values::given(before));
    let mut command = with_values(Args::command(), &values);
    let mut all = vec![OsString::from(command.get_name())];
    all.extend(before.iter().cloned());
    all.push(last.clone());
    let index = all.len() - 1;
    let candidates = engine::complete(&mut command, all, index, None).unwrap_or_default();
    // There are many options: show them only for a word that begins like one.
    let wants_options = last.to_string_lossy().starts_with('-');
    let mut text = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let Some(value) = candidate.get_value().to_str() else { continue };
        if value.starts_with('-') && !wants_options {
            continue;
        }
        text.push_str(&sanitize::line(&text::line(value)));
        if let Some(help) = candidate.get_help() {
            text.push('\t');
            text.push_str(help.to_string().lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    (text, NO_FILES)
}

/// Whether this word is an option, or begins with one, whose value is a file name.
fn takes_file(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    let option = word.split_once('=').map_or(&*word, |(option, _)| option);
    matches!(option, "--kubeconfig" | "--client-certificate" | "--client-key" | "--certificate-authority")
}

/// The kind of an option's values.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Namespace,
    Pod,
    Container,
    Label,
    Node,
    Context,
    Cluster,
    User,
}

impl Kind {
    fn of(option: &str) -> Option<Self> {
        Some(match option {
            "namespace" | "tracer_namespace" => Self::Namespace,
            "pod" => Self::Pod,
            "container" => Self::Container,
            "selector" => Self::Label,
            "node" => Self::Node,
            "context" => Self::Context,
            "cluster" => Self::Cluster,
            "user" => Self::User,
            _ => return None,
        })
    }
}

/// Adds completion of values from the cluster to the options.
fn with_values(command: Command, values: &Arc<Values>) -> Command {
    let command = command.mut_args(|option| match Kind::of(option.get_id().as_str()) {
        None => option,
        Some(kind) => {
            let values = Arc::clone(values);
            option.add(ArgValueCompleter::new(move |current: &OsStr| values.complete(kind, current)))
        }
    });
    command.mut_subcommands(|command| with_values(command, values))
}

/// The options that are already on the command line.
#[derive(Default)]
struct Values {
    cluster: Option<ClusterArgs>,
    namespaces: Vec<String>,
    all_namespaces: bool,
    pods: Vec<String>,
}

impl Values {
    /// Reads as much as is valid of these words.
    fn given(words: &[OsString]) -> Self {
        let command = Args::command().ignore_errors(true);
        let name = OsString::from("kubectl-tracer");
        let Ok(matches) = command.try_get_matches_from([name].iter().chain(words)) else {
            return Self::default();
        };
        let mut matches = &matches;
        while let Some((_, below)) = matches.subcommand() {
            matches = below;
        }
        Self {
            cluster: ClusterArgs::from_arg_matches(matches).ok(),
            namespaces: wanted(matches, "namespace", Name::of_namespace).literals(Name::literal),
            all_namespaces: matches!(matches.try_get_one("all_namespaces"), Ok(Some(true))),
            pods: wanted(matches, "pod", PodName::parse).literals(PodName::literal),
        }
    }

    /// The values that begin with `current`. The last item of a list is completed.
    fn complete(&self, kind: Kind, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        let begun = current.rfind([',', '!']).map_or(0, |separator| separator + 1);
        let (before, begun) = current.split_at(begun);
        let found = self.find(kind).unwrap_or_default();
        let matching = found.into_iter().filter(|value| value.starts_with(begun));
        matching.map(|value| CompletionCandidate::new(format!("{before}{value}"))).collect()
    }

    fn find(&self, kind: Kind) -> Option<BTreeSet<String>> {
        let args = self.cluster.as_ref()?;
        let of_file = |names: fn(Kubeconfig) -> Vec<String>| {
            let file = args.kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
            Some(names(file.ok()?).into_iter().collect())
        };
        match kind {
            Kind::Context => of_file(|file| file.contexts.into_iter().map(|named| named.name).collect()),
            Kind::Cluster => of_file(|file| file.clusters.into_iter().map(|named| named.name).collect()),
            Kind::User => of_file(|file| file.auth_infos.into_iter().map(|named| named.name).collect()),
            _ => {
                let runtime = local_runtime().ok()?;
                let asked = runtime.block_on(async { timeout(TIMEOUT, self.ask(kind, args)).await });
                // What still waits for an answer must not keep the process.
                runtime.shutdown_background();
                asked.ok()?
            }
        }
    }

    async fn ask(&self, kind: Kind, args: &ClusterArgs) -> Option<BTreeSet<String>> {
        let Cluster { client, namespace, .. } = Cluster::find(args).ok()?;
        if matches!(kind, Kind::Namespace) {
            return names(Api::<Namespace>::all(client)).await;
        }
        if matches!(kind, Kind::Node) {
            return names(Api::<Node>::all(client)).await;
        }
        let mut found = BTreeSet::new();
        for pod in self.pods(&client, &namespace).await? {
            match kind {
                Kind::Pod => found.extend(pod.metadata.name),
                Kind::Label => found.extend(pod.metadata.labels.unwrap_or_default().into_keys()),
                _ => {
                    let of_these = pod.metadata.name.is_some_and(|name| self.pods.contains(&name));
                    if self.pods.is_empty() || of_these {
                        let spec = pod.spec.unwrap_or_default();
                        let all = spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default());
                        found.extend(all.map(|container| container.name));
                    }
                }
            }
        }
        Some(found)
    }

    /// The pods of the namespaces that are selected.
    async fn pods(&self, client: &Client, namespace: &str) -> Option<Vec<Pod>> {
        let these = ListParams::default().limit(OBJECTS_MAX);
        if self.all_namespaces {
            return Some(Api::<Pod>::all(client.clone()).list(&these).await.ok()?.items);
        }
        let namespace = [namespace.to_owned()];
        let namespaces = if self.namespaces.is_empty() { &namespace[..] } else { &self.namespaces };
        let mut pods = Vec::new();
        for namespace in namespaces {
            let listed = Api::<Pod>::namespaced(client.clone(), namespace).list(&these).await;
            pods.extend(listed.ok()?.items);
        }
        Some(pods)
    }
}

/// What an option selects.
fn wanted<T: Item>(matches: &ArgMatches, option: &str, parse: fn(&str) -> Result<T, String>) -> Pattern<T> {
    let values = matches.try_get_many::<String>(option).ok().flatten();
    let values: Vec<String> = values.into_iter().flatten().cloned().collect();
    Pattern::parse(&values, parse).unwrap_or_default()
}

/// The names of all objects of a kind.
async fn names<K>(api: Api<K>) -> Option<BTreeSet<String>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let listed = api.list_metadata(&ListParams::default().limit(OBJECTS_MAX)).await.ok()?;
    Some(listed.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(words: &[&str]) -> (Vec<String>, u8) {
        let (text, directive) = complete(&words.iter().map(Into::into).collect::<Vec<_>>());
        (text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect(), directive)
    }

    #[test]
    fn completion_is_requested_by_the_first_argument() {
        let of = |words: &[&str]| requested(words.iter().map(Into::into));
        assert_eq!(of(&["kubectl-tracer", "__complete", "trace", ""]), Some(vec!["trace".into(), "".into()]));
        assert_eq!(of(&["kubectl-tracer", "trace", "__complete"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn commands_kinds_and_options_are_completed() {
        let (commands, directive) = completed(&[""]);
        assert_eq!(directive, NO_FILES);
        assert!(
            ["trace", "list-containers", "deploy", "undeploy"]
                .iter()
                .all(|name| commands.iter().any(|c| c == name)),
            "{commands:?}"
        );
        assert!(commands.iter().all(|name| !name.starts_with('-') && name != "man"), "{commands:?}");
        assert_eq!(completed(&["tr"]).0, ["trace"]);
        assert_eq!(completed(&["trace", "o"]).0, ["open"]);
        assert!(completed(&["trace", "open", "--all"]).0.contains(&"--all-namespaces".to_owned()));
        assert!(completed(&["deploy", "-o", ""]).0.contains(&"kyaml".to_owned()));
        assert_eq!(completed(&["trace", "--kubeconfig", ""]), (vec![], FILES));
    }
}
