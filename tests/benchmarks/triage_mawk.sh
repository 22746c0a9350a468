#!/bin/sh
# The sums of the old triage, by mawk: one pass per file. Usage: triage_mawk.sh BUNDLE.tar.gz
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xzf "$1" -C "$folder"
awk=${AWK:-mawk}

$awk -F '\t' '
  {
    ok = index($6, "\"sources\":[{") > 0
    if (ok) {
      successes++
      if (!first) first = "round " $2 " at " $1
      last = "round " $2 " at " $1
      streak = 0
      if (!($3 in files)) { files[$3]; unique++ }
      if (match($6, /"source_id_hex":"[^"]*"/)) sources[substr($6, RSTART + 17, RLENGTH - 18)]++
    } else if (++streak > longest) longest = streak
    if (NR > 300) recent -= ring[NR % 300]
    ring[NR % 300] = ok
    recent += ok
  }
  END {
    printf "total %d\nsuccesses %d\npercent %.6f\n", NR, successes, NR ? 100 * successes / NR : 0
    printf "first %s\nlast %s\nlongest %d\nrecent %d\nunique %d\n", first, last, longest, recent, unique
    for (id in sources) printf "source %d %s\n", sources[id], id | "sort -k2,2nr -k3,3 | head -n 10"
  }' "$folder/logs/rounds.tsv"

$awk -F '\t' '
  BEGIN {
    count = split("live live_10m routing pending timeouts dropped_undecipherable" \
      " dropped_unparsable source_store_files source_store_entries_total" \
      " recv_search_source_reqs recv_publish_source_reqs source_search_hits" \
      " source_search_misses source_search_results_served" \
      " source_probe_first_publish_responses source_probe_first_search_responses" \
      " source_probe_search_results_total source_probe_publish_latency_ms_total" \
      " source_probe_search_latency_ms_total", keys, " ")
    for (i = 1; i <= count; i++) { pattern[i] = "\"" keys[i] "\":[0-9]+"; skip[i] = length(keys[i]) + 3 }
  }
  {
    node[$2]
    for (i = 1; i <= count; i++) {
      value = match($0, pattern[i]) ? substr($0, RSTART + skip[i], RLENGTH - skip[i]) + 0 : 0
      last[$2, i] = value
      if (value > largest[$2, i]) largest[$2, i] = value
    }
  }
  END {
    for (name in node)
      for (i = 1; i <= count; i++)
        printf "counter %s %s %d %d\n", name, keys[i], largest[name, i], last[name, i]
  }' "$folder/logs/status.ndjson"

for node in a b; do
  $awk -v node="$node" '
    tolower($0) ~ /panicked|panic!|thread .* panicked|fatal error|segmentation/ { lines++ }
    END { printf "panic_lines %s %d\n", node, lines }' "$folder/logs/$node.out"
done
$awk '/stop requested/ { line = $0 } END { print "stop_marker " line }' "$folder/logs/soak.log"
$awk '/started|stop requested|failed|error|panic|killed|terminated/ { line[n++] = $0 }
  END { for (i = n > 12 ? n - 12 : 0; i < n; i++) print "runner_out " line[i] }' "$folder/runner.out"
