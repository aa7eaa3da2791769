#!/usr/bin/env bash
# Installs what the tests and the demo need and this machine lacks, and says what it does. Needs root or sudo only if
# something is missing. Run again it does nothing.
#
# Needed: PostgreSQL with its clients, and the stock tools that open a bundle (age, b3sum, zstd, tar, openssl).
# Welcome: servers of other versions, S3 servers, minisign. Without them the tests concerned say "skipped".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

command -v cargo >/dev/null || { echo "setup: Rust (cargo) is missing; install it with rustup" >&2; exit 1; }

missing=()
need() { # need PROGRAM PACKAGE
	command -v "$1" >/dev/null || missing+=("$2")
}
need age age
need b3sum b3sum
need cc build-essential
need jq jq
need openssl openssl
need pgrep procps
need setpriv util-linux
need tar tar
need zstd zstd
if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null; then
	missing+=(postgresql postgresql-client)
fi
optional=()
command -v minisign >/dev/null || optional+=(minisign)

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "setup: this needs root or sudo: $*" >&2
		return 1
	fi
}

install_packages() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@" >/dev/null
}

if [ ${#missing[@]} -gt 0 ] && ! command -v apt-get >/dev/null; then
	echo "setup: no apt-get here; please install: ${missing[*]}" >&2
	exit 1
fi
if [ ${#missing[@]} -gt 0 ] || { [ ${#optional[@]} -gt 0 ] && [ -n "${CI:-}" ] && command -v apt-get >/dev/null; }; then
	echo "setup: apt-get update"
	as_root apt-get update --quiet >/dev/null || echo "setup: the package lists could not be refreshed; trying with the old ones" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
	echo "setup: apt-get install ${missing[*]}"
	install_packages "${missing[@]}"
fi
for package in "${optional[@]}"; do
	if command -v apt-get >/dev/null && install_packages "$package" 2>/dev/null; then
		echo "setup: installed $package"
	else
		echo "setup: SKIPPED $package: could not be installed" >&2
	fi
done

for script in postgres-versions s3-servers kubelab; do
	[ -f "$here/setup/$script.sh" ] || continue
	bash "$here/setup/$script.sh" || echo "setup: SKIPPED $script: failed; see above" >&2
done
