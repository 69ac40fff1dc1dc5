#!/bin/sh
# Makes a base image from Debian packages alone, through this machine's own apt sources. No registry is asked.
# Usage: docker/tools/base.sh [IMAGE]; base.sh --name prints the name it has where none is given.
set -eu
# The recipe is part of the name: a base that an older one made does not pass for this one's.
own=ts-agent-http-relay-base:debian-$(cksum <"$0" | cut -d' ' -f1)
[ "${1:-}" != --name ] || { echo "$own"; exit 0; }
image=${1:-$own}
packages=${PACKAGES:-python3,ca-certificates,busybox,tini,iputils-ping}
fail() { echo "base image: $*" >&2; exit 1; }

command -v docker >/dev/null || fail "there is no docker here; install Docker 20.10.21 or later"
# shellcheck source=/dev/null
. /etc/os-release
suite=${SUITE:-${VERSION_CODENAME:-}}
[ -n "$suite" ] || fail "this machine has no Debian release name; name one: SUITE=trixie make base-image"
if ! command -v mmdebstrap >/dev/null && ! command -v debootstrap >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing mmdebstrap"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap; } >/dev/null </dev/null ||
            fail "mmdebstrap cannot be installed; install it, or debootstrap, by hand"
    else
        fail "it needs mmdebstrap or debootstrap (Debian: apt-get install mmdebstrap)"
    fi
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
# A fixed time: the same packages give the same base.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1577836800}"

# What apt on this machine uses for the release, one line each: `deb URL suite component`.
# shellcheck disable=SC2016
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$suite" '$3 == suite || $3 == suite "-updates" || $3 == suite "-security"' | sort -u >"$work/sources"
[ -s "$work/sources" ] || echo "deb http://deb.debian.org/debian $suite main" >"$work/sources"

if command -v mmdebstrap >/dev/null; then
    # This machine's way to its mirrors (proxy, certificates) is used, and is not kept: see the last hook.
    apt-config dump --no-empty 2>/dev/null | grep -E '^Acquire::(http|https|ftp|Check-|Retries)' >"$work/apt.conf" || :
    echo "Making $image from Debian $suite with mmdebstrap"
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=essential --include="$packages" --aptopt="$work/apt.conf" ${KEYRING:+--keyring="$KEYRING"} \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
        --format=tar "$suite" "$work/base.tar" "$work/sources" >"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "mmdebstrap failed"; }
else
    mirror=$(awk -v suite="$suite" '$3 == suite {print $2; exit}' "$work/sources")
    echo "Making $image from Debian $suite with debootstrap"
    debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" "$mirror" >"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "debootstrap failed"; }
    rm -rf "$work"/root/var/cache/apt "$work"/root/var/lib/apt/lists/* "$work"/root/etc/apt/sources.list "$work"/root/etc/apt/sources.list.d/* \
        "$work"/root/etc/resolv.conf "$work"/root/etc/hostname "$work"/root/var/log/* "$work"/root/usr/share/man "$work"/root/usr/share/locale
    tar -C "$work/root" --numeric-owner --one-file-system -cf "$work/base.tar" .
fi
docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/base.tar" "$image" >/dev/null
echo "Made $image, $(docker image inspect --format '{{.Size}}' "$image") bytes"
