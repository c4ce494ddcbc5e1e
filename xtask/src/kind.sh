# kind TAG CLIENT BUSYBOX NODE_IMAGE LOGS
#
# Tries tracer on a cluster of two nodes, which kind makes of containers. They get the image TAG; pods on both open
# files, by themselves and by `kubectl exec`; the kubectl-tracer in CLIENT must show each open under its names; after
# `undeploy` nothing may be left. The cluster is deleted in any case; the nodes' logs of a failure are in LOGS.
set -eu
tag=$1
export PATH="$2:$PATH"
busybox=$3
node_image=$4
logs=$5
cluster=tracer-xtask-$$
namespace=tracer-xtask
image=tracer-xtask-busybox:1
scratch=$(mktemp -d)
# The user's own configuration of kubectl is not touched.
export KUBECONFIG="$scratch/kubeconfig"
tracer=

finish() {
    status=$?
    trap '' INT TERM HUP
    [ -z "$tracer" ] || kill "$tracer" 2> /dev/null || :
    if [ "$status" != 0 ]; then
        kind export logs --name "$cluster" "$logs" > /dev/null 2>&1 || :
        cat "$scratch/log" >&2 2> /dev/null || :
        echo "xtask: failed; the nodes' logs are in $logs" >&2
    fi
    kind delete cluster --name "$cluster" || :
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

print_step() {
    echo "xtask: $*" >&2
}

# wait_for WHAT COMMAND... until the command succeeds, for a minute
wait_for() {
    what=$1
    shift
    end=$(($(date +%s) + 60))
    until "$@"; do
        if [ "$(date +%s)" -ge "$end" ]; then
            print_step "error: waited a minute for $what"
            exit 1
        fi
        sleep 0.2
    done
}

print_step 'making a cluster of two nodes'
cp "$busybox" "$scratch/busybox"
# busybox alone, so that no registry is asked.
printf 'FROM scratch\nCOPY busybox /bin/busybox\n' | docker build --quiet --tag "$image" --file - "$scratch" >&2
kind create cluster --name "$cluster" --image "$node_image" --wait 180s --config - << 'END'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
END
kind load docker-image --name "$cluster" "$tag" "$image"
nodes=$(kind get nodes --name "$cluster" | sort)

print_step 'deploying tracer, and a pod on each node'
kubectl tracer deploy --image "$tag"
kubectl create namespace "$namespace"
for node in $nodes; do
    kubectl apply --filename - << END
apiVersion: v1
kind: Pod
metadata:
  name: reader-on-$node
  namespace: $namespace
spec:
  nodeName: $node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  tolerations:
    - operator: Exists
  containers:
    - name: reader
      image: $image
      imagePullPolicy: Never
      command: [/bin/busybox, sh, -c]
      args: ['while :; do /bin/busybox cat /opened-in-a-loop 2>/dev/null; /bin/busybox sleep 1; done']
END
    for path in /opened-in-a-loop /opened-by-exec; do
        echo "$node $namespace reader-on-$node reader $path" >> "$scratch/expected"
    done
done
kubectl wait --namespace "$namespace" --for=condition=Ready pods --all --timeout=180s

print_step 'tracing'
columns=node,namespace,pod,container,path
kubectl tracer trace open --namespace "$namespace" --output "custom-columns=$columns" \
    > "$scratch/events" 2> "$scratch/log" &
tracer=$!
is_ready() {
    kill -0 "$tracer" || exit 1
    grep -q '^tracer: ready' "$scratch/log"
}
wait_for 'every node to be ready' is_ready
for node in $nodes; do
    kubectl exec --namespace "$namespace" "reader-on-$node" --container reader -- \
        /bin/busybox sh -c '/bin/busybox cat /opened-by-exec 2>/dev/null || true'
done
shown() {
    awk '/ \/opened-(in-a-loop|by-exec) *$/ { print $1, $2, $3, $4, $5 }' "$scratch/events" | sort -u > "$scratch/shown"
    sort "$scratch/expected" | cmp -s - "$scratch/shown"
}
if ! (wait_for 'all opens to be shown' shown); then
    print_step 'expected (<), and shown instead (>):'
    sort "$scratch/expected" | diff - "$scratch/shown" >&2
    exit 1
fi
kill -INT "$tracer"
wait "$tracer"
tracer=
# The closing line must be there and add up.
awk '/^tracer: seen / { sum = ($5 + 0) + ($7 + 0) + ($9 + 0); ok = ($3 + 0 == sum) } END { exit !ok }' "$scratch/log"

print_step 'removing tracer'
kubectl tracer undeploy
is_gone() {
    objects=$(kubectl get pods,daemonsets --all-namespaces --output \
        'jsonpath={range .items[*]}{..image}{"\n"}{end}')
    # Kubernetes' own pods are there in any case.
    [ -n "$objects" ] || return 1
    ! echo "$objects" | grep -qF "$tag" || return 1
    for node in $nodes; do
        # A process may end meanwhile.
        ! docker exec "$node" sh -c 'cat /proc/[0-9]*/comm 2>/dev/null; true' | grep -qx tracer || return 1
    done
}
wait_for 'pods and processes of tracer to be gone' is_gone
print_step 'every event under its names, from both nodes; nothing is left'
