#!/usr/bin/env bash
# What the scripts spent per round, without their waits: 5 curl, 2 cat, 1 hexdump, 5 date, 2 tee,
# 1 grep, 3 sleep 0, 3 appends. Written for this comparison; drives two nodes that run already.
# Usage: shell_runner.sh ROUNDS OUT_DIR A_URL A_TOKEN_FILE B_URL B_TOKEN_FILE
set -euo pipefail
rounds=$1 out=$2 a_url=$3 a_token_file=$4 b_url=$5 b_token_file=$6
now() { date +%Y-%m-%dT%H:%M:%S%z; }
call() { curl -s --connect-timeout 3 --max-time 8 -H "Authorization: Bearer $1" "${@:2}"; }

for ((round = 1; round <= rounds; round++)); do
  a_token=$(cat "$a_token_file")
  b_token=$(cat "$b_token_file")
  id=$(hexdump -n 16 -v -e '1/1 "%02x"' /dev/urandom)
  size=$((1024 + RANDOM * 100))
  body="{\"file_id_hex\":\"$id\",\"file_size\":$size}"
  echo "$(now) round=$round file=$id size=$size" | tee -a "$out/runner.log" >/dev/null
  publish=$(call "$a_token" -X POST -H 'Content-Type: application/json' -d "$body" \
    "$a_url/api/v1/kad/publish_source")
  sleep 0
  search=$(call "$b_token" -X POST -H 'Content-Type: application/json' -d "$body" \
    "$b_url/api/v1/kad/search_sources")
  sleep 0
  found=$(call "$b_token" "$b_url/api/v1/kad/sources/$id")
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(now)" "$round" "$id" "$publish" "$search" "$found" \
    >>"$out/rounds.tsv"
  printf '%s\tA\t%s\n' "$(now)" "$(call "$a_token" "$a_url/api/v1/status")" >>"$out/status.ndjson"
  printf '%s\tB\t%s\n' "$(now)" "$(call "$b_token" "$b_url/api/v1/status")" >>"$out/status.ndjson"
  outcome=miss
  if grep -q '"sources":\[{' <<<"$found"; then outcome=hit; fi
  echo "$(now) round=$round outcome=$outcome" | tee -a "$out/runner.log" >/dev/null
  sleep 0
done
