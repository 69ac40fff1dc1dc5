#!/bin/sh
# Verifies that the relay agent runs, and from the delivered image. The last line is GOOD or BAD.
set -eu
LC_ALL=C  # Sorts names the same way everywhere.
export LC_ALL

usage() {
    cat <<'HELP'
Usage: ./verify.sh

Verifies the container: is it running, from which tag and image id, is it healthy, does it have its configuration, is it Online?
If the delivery (SHA256SUMS, IMAGE_ID, the image's tarball) is beside this script, it also verifies the image id, and the
checksum of every delivered file that is there.

Environment (you can also set CONTAINER_NAME in agent.env):
  ENV_FILE         the settings file (default: agent.env beside this script)
  CONTAINER_NAME   the container's name (default: ts-agent-http-relay)

Exit codes: 0 everything is correct, 1 something is wrong, 2 could not verify.
HELP
}
case ${1:-} in
-h | --help) usage; exit 0 ;;
?*) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)  # The script's own directory, even if it is called through a symbolic link.
env_file=${ENV_FILE:-$here/agent.env}
container=${CONTAINER_NAME:-}
[ -n "$container" ] || [ ! -r "$env_file" ] ||
    container=$(tr -d '\r' <"$env_file" | sed "1s/^$(printf '\357\273\277')//" | sed -n 's/^[[:space:]]*CONTAINER_NAME[[:space:]]*=[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*$/\1/p' | tail -n 1)
container=${container:-ts-agent-http-relay}
bad=0
first=
ok() { printf 'ok    %-10s %s\n' "$1" "$2"; }
note() { printf '%-5s %-10s %s\n' - "$1" "$2"; }
wrong() {
    printf 'BAD   %-10s %s\n' "$1" "$2"
    printf '      %-10s cure: %s\n' '' "$3"
    bad=$((bad + 1))
    first=${first:-$1: $2}
}
finish() {
    if [ "$bad" = 0 ]; then
        echo "GOOD: $container runs the agent, which is Online and waits for commands."
        exit 0
    fi
    echo "BAD: $first$([ "$bad" = 1 ] || echo " (and $((bad - 1)) more)")"
    exit 1
}

# --- What was delivered ------------------------------------------------------------------------------
delivered=
[ ! -f "$here/IMAGE_ID" ] || delivered=$(cat "$here/IMAGE_ID")
if [ -z "$delivered" ] && grep -q ' \*\{0,1\}IMAGE_ID$' "$here/SHA256SUMS" 2>/dev/null; then
    wrong image "SHA256SUMS lists IMAGE_ID, but the file is missing" "copy it from the delivery"
fi
tarballs=$(find "$here" -maxdepth 1 -name 'ts-agent-http-relay-v*.tar.gz' | sed 's/.*\///' | sort -V)
if [ ! -f "$here/SHA256SUMS" ]; then
    for name in $tarballs; do wrong checksum "there is no SHA256SUMS beside $name" "copy it from the delivery"; done
    [ -n "$tarballs" ] || note checksum "not verified: there is no SHA256SUMS beside this script"
else
    listed=
    image=
    return=$(printf '\r')
    right=0
    absent=
    while read -r wanted name || [ -n "$wanted" ]; do
        name=${name#\*}
        name=${name%"$return"}
        [ -n "$name" ] || continue
        listed="$listed $name"
        case $name in ts-agent-http-relay-v*.tar.gz) image=yes ;; esac
        if [ ! -f "$here/$name" ]; then
            absent="$absent $name"
            continue
        fi
        found=$(sha256sum "$here/$name" 2>/dev/null) || found='unreadable'
        found=${found%% *}
        case $name in
        *.tar.gz) cure="do not load it; fetch the delivery again, from a source you trust" ;;
        *) cure="if you did not change it, do not use it; if you did, copy it again from the delivery and keep your version elsewhere" ;;
        esac
        if [ "$wanted" = "$found" ]; then
            right=$((right + 1))
        else
            wrong checksum "$name does not match SHA256SUMS: $found" "$cure"
            continue
        fi
        case $name in ts-agent-http-relay-v*.tar.gz) ;; *) continue ;; esac
        # The image id is the digest of the image's configuration; the tarball's manifest contains it.
        inside=$(tar -xzOf "$here/$name" manifest.json 2>/dev/null | sed -n 's/.*"Config":"\(blobs\/sha256\/\)\{0,1\}\([0-9a-f]\{64\}\).*/sha256:\2/p')
        if [ -n "$delivered" ] && [ "$inside" != "$delivered" ]; then
            wrong checksum "$name contains the image ${inside:-(none)}, not that of IMAGE_ID" "$cure"
        else
            ok checksum "$name, sha256 $found"
        fi
    done <"$here/SHA256SUMS"
    [ "$right" = 0 ] || ok files "$right of the delivery's files match SHA256SUMS"
    [ -z "$absent" ] || note files "not here:$absent"
    [ -n "$image" ] || wrong checksum "SHA256SUMS lists no tarball of the image" "it is not the delivered file; fetch the delivery again, from a source you trust"
    for name in $tarballs; do
        case " $listed " in
        *" $name "*) ;;
        *) note checksum "$name is not part of this delivery: SHA256SUMS does not list it" ;;
        esac
    done
fi

# --- The container -----------------------------------------------------------------------------------
command -v docker >/dev/null || { echo "verify.sh: the docker command is not installed" >&2; exit 2; }
docker version >/dev/null 2>&1 || { echo "verify.sh: Docker does not answer; start it, and run this script as root or as a member of the group docker" >&2; exit 2; }
if [ "$(docker container inspect --format '{{.Name}}' "$container" 2>/dev/null)" != "/$container" ]; then
    wrong running "there is no container $container" "start it: ./run.sh, or name another: CONTAINER_NAME=name ./verify.sh"
    finish
fi
look() { docker inspect --format "$1" "$container"; }
alive=
if [ "$(look '{{.State.Paused}}')" = true ]; then
    wrong running "$container is paused" "docker unpause $container"
elif [ "$(look '{{.State.Running}} {{.State.Restarting}}')" = "true false" ]; then
    alive=yes
    ok running "since $(look '{{.State.StartedAt}}' | cut -c1-19), restarts: $(look '{{.RestartCount}}')"
else
    wrong running "$container is $(look '{{.State.Status}}'), last exit code $(look '{{.State.ExitCode}}')" "its log says why: docker logs --tail 20 $container"
fi
ok tag "$(look '{{.Config.Image}}')"
id=$(look '{{.Image}}')
if [ -z "$delivered" ]; then
    note image "$id; not verified: there is no IMAGE_ID beside this script"
elif [ "$id" = "$delivered" ]; then
    ok image "$id, as delivered"
else
    wrong image "$id is not the delivered $delivered" "load the delivered image (docker load -i), then run ./run.sh"
fi
[ -n "$alive" ] || finish

# --- The agent, over its own socket inside the container ----------------------------------------------
if reason=$(docker exec "$container" python3 -ISs /opt/relay-agent/bin/healthcheck.py 2>&1); then
    ok healthy "every thread is alive and makes progress (Docker's status: $(look '{{if .State.Health}}{{.State.Health.Status}}{{else}}no health check{{end}}'))"
else
    wrong healthy "$reason" "docker exec $container relay-agent status shows causes and cures"
fi
facts=$(docker exec "$container" relay-agent status --json 2>/dev/null) || :
fact() { printf '%s' "$facts" | grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | sed 's/^"[^"]*": *"//; s/"$//'; }
configured=$(fact lastConfiguration)
if [ -n "$configured" ]; then
    ok init "the platform sent configuration and credentials ($configured)"
else
    wrong init "$(fact sentence | grep . || echo 'the agent does not report a configuration')" "docker exec $container relay-agent check"
fi
beat=$(fact lastHeartbeat)
age=999999
[ -z "$beat" ] || age=$(($(date -u +%s) - $(date -u -d "$beat" +%s)))
if [ "$age" -le 120 ]; then
    ok online "last heartbeat $age s ago"
else
    wrong online "$([ -n "$beat" ] && echo "no heartbeat for $age s" || echo "no heartbeat yet"), so it is not Online" "docker exec $container relay-agent check"
fi
case $(fact state) in
ready) ok commands "$(fact sentence)" ;;
'') ;;
*) wrong commands "$(fact sentence)" "docker exec $container relay-agent status shows cause and cure" ;;
esac
finish
