#!/usr/bin/env bash
# Mean resident size of a command in the first and in the last quarter of its run time, in MiB, and
# their ratio. The first five seconds, for set-up, are not counted.
#
#     benches/memory.sh target/release/examples/digits --model gan --steps 20000 --minutes 1000
set -euo pipefail
"$@" > /dev/null 2>&1 &
process=$!
sizes=()
sleep 5
while kill -0 "$process" 2> /dev/null; do
  size=$(awk '/VmRSS/ {print $2}' "/proc/$process/status" 2> /dev/null || true)
  if [ -n "$size" ]; then sizes+=("$size"); fi
  sleep 1
done
wait "$process"
printf '%s\n' "${sizes[@]}" | awk '
  {size[NR] = $1 / 1024}
  END {
    quarter = int(NR / 4); if (quarter < 1) {print "the run is too short to measure"; exit 1}
    for (i = 1; i <= quarter; i++) {first += size[i]; last += size[NR + 1 - i]}
    printf "first quarter %.1f MiB, last quarter %.1f MiB, ratio %.3f, over %d seconds\n", first / quarter, last / quarter, last / first, NR
  }'
