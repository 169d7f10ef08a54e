#!/bin/sh
# Builds and starts the image of docker/Dockerfile where there is no container engine and no registry: as root on Debian
# or Ubuntu, with buildah and debootstrap (apt-get install buildah debootstrap crun).
#
#   docker/real_build.sh [TARGET] [more options for `buildah build`]
#
# In place of python:*-slim stands a minimal Debian with its own Python; all else are the Dockerfile's own steps. Options
# are for what pip needs of this machine, such as `--volume /etc/pip.conf:/etc/pip.conf:ro`.
set -eu

here=$(dirname "$(realpath "$0")")
target=${1:-cpu}
[ $# -eq 0 ] || shift
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
base=docker.io/library/$(sed -n 's/^FROM \(python:[^ ]*\) AS runtime$/\1/p' "$here/Dockerfile")

say() { echo "== $*"; }

made_base() {
    say "a stand-in for $base: $suite, minimal"
    root=${ROOTFS:-$work/root}  # may be there from an earlier run
    [ -d "$root" ] || debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root" "$mirror" >"$work/debootstrap.log"
    ln -sf ../../bin/python3 "$root/usr/local/bin/python"
    container=$(buildah from scratch)
    buildah add -q "$container" "$root" / >/dev/null
    buildah config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$container"
    buildah commit -q --rm "$container" "$base" >/dev/null
}

healthy() {
    buildah run "$1" -- python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)" 2>/dev/null
}

buildah images -q "$base" >/dev/null 2>&1 || made_base

say "the Dockerfile's steps, target $target"
buildah build --pull-never --layers -f "$here/Dockerfile" --target "$target" -t "selftpt:$target" "$@" "$here/.."
buildah images "selftpt:$target"

say "the image's command, as its user"
container=$(buildah from --pull-never "selftpt:$target")
trap 'buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
buildah run "$container" -- id
# Isolated by chroot alone: the number that the process writes down is its own on this machine.
buildah run -e SELFTPT_ALLOW_ANONYMOUS=true "$container" -- \
    sh -c 'echo $$ >pid; exec selftpt serve --host 0.0.0.0 --port 8000' >"$work/service.log" 2>&1 &
service=$!
tries=0
until healthy "$container"; do
    tries=$((tries + 1))
    if [ $tries -gt 120 ] || ! kill -0 "$service" 2>/dev/null; then cat "$work/service.log"; exit 1; fi
    sleep 1
done
say "healthy"
buildah run "$container" -- python -c "import json, urllib.request as u; print(json.load(u.urlopen('http://127.0.0.1:8000/v1/models'))['models'][0])"
kill -TERM "$(buildah run "$container" -- cat pid)"
wait "$service"
say "SIGTERM ended it cleanly"
