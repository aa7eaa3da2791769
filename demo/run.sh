#!/usr/bin/env bash
# A backup and a restore before your eyes, on a sample cluster of this script's own: `make demo`.
#
# Each command is printed before it runs; one that does not end as expected ends the script. Everything lies in one
# temporary folder, which goes at the end, however that comes. PACHARC names another build.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
pacharc=$(realpath "${PACHARC:-$root/target/release/pacharc}")
PATH=$(dirname "$pacharc"):$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/pacharc-demo.XXXXXX")
# The servers may run as another user.
chmod 711 "$work"
cd "$work"

running=()
clean_up() {
	code=$?
	trap '' INT TERM
	for pid in "${running[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	for server in old new; do
		[ ! -d "$work/$server-server" ] || pacharc-sample server stop --dir "$work/$server-server" || true
	done
	cd /
	rm -rf "$work"
	exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bold='' blue='' red='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' blue=$'\e[36m' red=$'\e[31m' plain=$'\e[0m'; fi

title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

show() { printf '%s$ %s%s\n' "$blue" "$*" "$plain"; }

# How many chunks lie in a bucket, whole or half written.
chunks() { (cd "$1/chunk" 2>/dev/null && ls) | wc -l || true; }

# expect CODE COMMAND: shows the command, runs it, and keeps what it says in the file `said`.
expect() {
	local code
	show "$2"
	set +e
	eval "$2" 2>&1 | tee "$work/said"
	code=${PIPESTATUS[0]}
	set -e
	[ "$code" = "$1" ] || fail "exit code $code instead of $1"
}

fail() {
	printf '%sdemo: FAILED: %s%s\n' "$red" "$*" "$plain" >&2
	exit 1
}

title 'A sample cluster: databases and bucket as pachd makes them; keys, two of them; and an empty new server'
old=$(pacharc-sample server start --dir "$work/old-server")
new=$(pacharc-sample server start --dir "$work/new-server")
from="--postgres $old --bucket file://$work/bucket"
to="--postgres $new --bucket file://$work/new-bucket"
expect 0 'pacharc-sample make --postgres $old --bucket bucket --objects 3000 --max-bytes 20000'
for key in key.txt spare.txt; do pacharc keygen -o $key >>keygen 2>&1 || fail "$(cat keygen)"; done
grep -oh 'age1[0-9a-z]*' key.txt spare.txt >recipients.txt

title 'A backup while the cluster is written to, checked without a key, and with it'
pacharc-sample write --postgres "$old" --bucket bucket --for 60s >writer 2>&1 &
running=($!)
expect 0 'pacharc backup $from --recipients-file recipients.txt -o live.pacharc'
kill -0 "${running[0]}" 2>/dev/null || fail "the writer had ended: $(cat writer)"
kill -INT "${running[0]}" && wait "${running[0]}" || fail "the writer: $(cat writer)"
running=()
echo "(meanwhile: $(cat writer))"
expect 0 'pacharc verify live.pacharc --quiet && echo sound'
expect 0 'pacharc verify live.pacharc --identity key.txt'

title 'A restore that is killed half-way, and run again: equal, by a comparison that shares no code with pacharc'
expect 0 'pacharc backup $from --recipients-file recipients.txt -o cluster.pacharc --quiet'
restore='pacharc restore cluster.pacharc --identity key.txt $to'
show "$restore &  kill -9"
# shellcheck disable=SC2086
pacharc restore cluster.pacharc --identity key.txt $to >killed 2>&1 &
running=($!)
for _ in {1..3000}; do
	[ "$(chunks new-bucket)" -lt 500 ] || break
	sleep 0.01
done
kill -KILL "${running[0]}" 2>/dev/null || fail "the restore had ended: $(cat killed)"
code=0
wait "${running[0]}" 2>/dev/null || code=$?
running=()
[ "$code" = 137 ] || fail "the restore had ended: exit code $code: $(cat killed)"
[ -e new-bucket/pacharc.restoring ] || fail 'the new bucket is not marked as unfinished'
echo "(killed: $(chunks new-bucket) of $(chunks bucket) chunks were there)"
expect 0 "$restore"
expect 0 'pacharc-sample compare --from $old --to $new --bucket bucket --bucket new-bucket --all'

title 'The same bundle by stock tools alone, as the README inside it says'
mkdir stock
expect 0 'tar -xf cluster.pacharc -C stock && cd stock/pacharc-*/ && b3sum --check --quiet BLAKE3SUMS && mkdir tree'
cd stock/pacharc-*/
expect 0 'age -d -i "$work/key.txt" bundle.key.age > bundle.key'
# shellcheck disable=SC2016
expect 0 'for s in data/*; do age -d -i bundle.key $s | case $s in *.zst.age) zstd -dcq;; *) cat;; esac; done |
  tar -xi --no-same-owner --warning=no-unknown-keyword -C tree'
expect 0 'diff -r "$work/bucket/chunk" tree/objects/chunk && echo "every chunk is as in the bucket"'
cd "$work"

title 'One chunk deleted and one flipped at the source: the rest is saved, both are named, exit code 4'
deleted=$(pacharc-sample damage --postgres "$old" --bucket bucket --delete --pick 7)
flipped=$(pacharc-sample damage --postgres "$old" --bucket bucket --flip --pick 70)
expect 4 'pacharc backup $from --recipients-file recipients.txt -o damaged.pacharc'
for key in "$deleted" "$flipped"; do grep -q "$key" said || fail "$key is not named"; done
expect 4 'pacharc verify damaged.pacharc --identity key.txt'

title 'All as expected'
