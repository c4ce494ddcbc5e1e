# fuzz PROGRAMS DATA SECONDS JOBS TARGET...
#
# Runs libFuzzer's PROGRAMS for so many seconds each, and prints a table. For each target DATA gets the corpus, the
# artifacts and a log.
export programs=$1 data=$2 seconds=$3
jobs=$4
shift 4

# An input that takes longer than ten seconds, or more memory, is a finding. The target writes its seeds to the corpus.
run='
    mkdir -p "$data/corpus/$0" "$data/artifacts/$0"
    echo "xtask: fuzzing $0 for $seconds s" >&2
    TRACER_FUZZ_SEEDS="$data/corpus/$0" "$programs/$0" "$data/corpus/$0" -artifact_prefix="$data/artifacts/$0/" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 > "$data/$0.log" 2>&1
    echo $? > "$data/$0.status"'
printf '%s\n' "$@" | xargs -P "$jobs" -I TARGET sh -c "$run" TARGET < /dev/stdin

failed=0
printf '%-14s%12s%8s  %s\n' TARGET EXECUTIONS EDGES RESULT
for target; do
    log=$data/$target.log
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    result=ok
    if [ "$(cat "$data/$target.status")" != 0 ] || [ "${executions:-0}" = 0 ]; then
        result="FAILED: see $log"
        failed=1
    fi
    printf '%-14s%12s%8s  %s\n' "$target" "${executions:-0}" "${edges:-0}" "$result"
    # Slow inputs, which libFuzzer keeps as well, are no findings.
    sed -n 's/.*Test unit written to //p' "$log" | grep -E '/(crash|timeout|oom|leak)-[^/]*$' |
        sed "s|^|  to see it again: $programs/$target |"
done
exit "$failed"
