#!/usr/bin/env bash
# Installs what the benches compare pacharc with and this machine lacks: rclone and restic from the distribution (as root or
# with sudo), s5cmd and kopia by Go into the cache of test tools, an S3 server by tests/setup/s3-servers.sh. What cannot be
# had is said; `compare` then leaves it out.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${PACHARC_TOOLS:-$HOME/.cache/pacharc-tests}
mkdir -p "$cache/bin"
PATH=$cache/bin:$PATH

skipped() { echo "benches: SKIPPED $1: $2" >&2; }
have() { command -v "$1" >/dev/null; }

packages=()
for package in age b3sum rclone restic zstd; do
	have "$package" || packages+=("$package")
done
if [ ${#packages[@]} -gt 0 ]; then
	root=()
	[ "$(id -u)" = 0 ] || root=(sudo)
	echo "benches: apt-get install ${packages[*]}"
	for package in "${packages[@]}"; do
		"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$package" \
			>/dev/null || skipped "$package" "apt-get could not install it"
	done
fi

# s5cmd's version and the sums of all it is made of are in tools/.
have s5cmd || { have go && CGO_ENABLED=0 go build -C "$here/tools" -o "$cache/bin/s5cmd" github.com/peak/s5cmd/v2; } ||
	skipped s5cmd "Go is missing, or could not build it"
have kopia || { have go && GOBIN=$cache/bin go install github.com/kopia/kopia@v0.18.2; } ||
	skipped kopia "Go is missing, or could not build it; https://kopia.io has binaries"

# Several minutes, once.
have minio || PACHARC_MINIO=1 "$here/../tests/setup/s3-servers.sh"
exit 0
