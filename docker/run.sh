#!/bin/sh
# Starts the relay agent's container, or replaces the existing one. Run it again after a change of the settings or the image.
set -eu
LC_ALL=C  # Treats values as bytes, whatever their encoding.
export LC_ALL

usage() {
    cat <<'HELP'
Usage: ./run.sh

Starts the relay agent with the settings in agent.env beside this script. Run it again after a change: it replaces the
container and keeps the state volume, so no accepted command is lost.

Environment (you can also set CONTAINER_NAME and IMAGE_NAME in agent.env):
  ENV_FILE         the settings file (default: agent.env beside this script)
  CONTAINER_NAME   the container's name (default: ts-agent-http-relay). The state volume is CONTAINER_NAME-state,
                   or the volume of the replaced container
  IMAGE_NAME       the image (default: ts-agent-http-relay:latest)

Exit codes: 0 started, 1 could not start, 2 something must be corrected first.
HELP
}

fail() { printf 'run.sh: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; }
refuse() { fail "$@"; exit 2; }

case ${1:-} in
-h | --help) usage; exit 0 ;;
?*) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)  # The script's own directory, even if it is called through a symbolic link.
env_file=${ENV_FILE:-$here/agent.env}
lowest=20.10.21

# --- Docker ------------------------------------------------------------------------------------------
command -v docker >/dev/null || refuse "the docker command is not installed" "Install Docker $lowest or later: https://docs.docker.com/engine/install/"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) ||
    refuse "Docker does not answer" "Start it (systemctl start docker), and run this script as root or as a member of the group docker."
number() { printf '%s' "$1" | sed 's/[^0-9.].*//' | awk -F. '{printf "%d%03d%03d", $1, $2, $3}'; }
[ "$(number "$engine")" -ge "$(number "$lowest")" ] ||
    refuse "Docker $engine is too old" "Update Docker to $lowest or later."

# --- Settings ----------------------------------------------------------------------------------------
[ -f "$env_file" ] || refuse "there is no file $env_file" "Copy agent.env from the delivery to it, or name another file: ENV_FILE=/path/to/agent.env ./run.sh"
[ -r "$env_file" ] || refuse "cannot read $env_file" "Run this script as the file's owner, or as root."
case $(stat -L -c %a "$env_file") in
*00) ;;
*) refuse "$env_file contains secrets, and other users can read it" "chmod 0600 $env_file" ;;
esac

work=$(mktemp -d)
chmod 0700 "$work"
# What an early end of this run must undo: nothing (empty), "stopping" or "replacing" the existing container.
changed=
old=
there() { [ "$(docker container inspect --format '{{.Name}}' "$1" 2>/dev/null)" = "/$1" ]; }  # Matches the name, not the beginning of an id.
runs() { [ "$($apart docker container inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
# Commands that undo run in their own session: a Ctrl-C would end docker even if its shell ignores the signal.
apart=
! command -v setsid >/dev/null || apart='setsid -w'
undo() {
    [ -n "$changed" ] || return 0
    if [ "$changed" = stopping ]; then
        # The engine continues a stop after its client has ended, and a start during the stop has no effect.
        waited=0
        while [ $waited -lt "$stop_seconds" ] && runs "$old"; do
            [ $waited -gt 0 ] || echo "run.sh: waiting until $container has stopped, to start it again (up to $stop_seconds s)" >&2
            waited=$((waited + 1))
            $apart sleep 1
        done
    fi
    made=$(cat "$work/made" 2>/dev/null)
    holder=$($apart docker container inspect --format '{{.Id}}' "$container" 2>/dev/null)
    if [ -n "$old" ] && [ "$holder" != "$old" ]; then
        [ -z "$holder" ] || $apart docker rm --force "$holder" >/dev/null 2>&1
        $apart docker rename "$old" "$container"
    elif [ -n "$made" ]; then
        $apart docker rm --force "$made" >/dev/null 2>&1
    fi
    [ -n "$old" ] || return 0
    if $apart docker start "$old" >/dev/null; then
        echo "run.sh: the previous container runs again" >&2
    else
        echo "run.sh: the previous container does not start; try: docker start $container" >&2
    fi
}
trap 'trap "" INT TERM HUP PIPE; set +e; undo; rm -rf "$work"' EXIT
# A shell does not run the EXIT trap when a signal ends it.
trap 'trap "" INT TERM HUP PIPE; fail interrupted; exit 1' INT TERM HUP PIPE

case $(od -An -tx1 -N2 "$env_file" | tr -d ' ') in
fffe | feff) refuse "$env_file is encoded in UTF-16" "Save it as UTF-8." ;;
esac
# Keeps only variables with a value. Removes comments, and the byte order mark and carriage returns of Windows editors.
tr -d '\r' <"$env_file" | sed "1s/^$(printf '\357\273\277')//" >"$work/lines"
<"$work/lines" sed -n 's/^[[:space:]]*\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*=[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*$/\1=\2/p' >"$work/set"
value() { sed -n "s/^$1=//p" "$work/set" | tail -n 1; }

container=${CONTAINER_NAME:-$(value CONTAINER_NAME)}
container=${container:-ts-agent-http-relay}
image=${IMAGE_NAME:-$(value IMAGE_NAME)}
image=${image:-ts-agent-http-relay:latest}

problems=
problem() { problems="$problems
  $1"; }
case $container in
[!A-Za-z0-9]* | *[!A-Za-z0-9_.-]*) problem "CONTAINER_NAME: Docker accepts only letters, digits and _ . -, not $container" ;;
esac
# Only if the whole value is a placeholder: a password may contain < and >.
placeholders=$(sed -n 's/^\([A-Za-z_0-9]*\)=<[^<>]*>$/\1/p' "$work/set" | sort -u)
for line in $(grep -n -v -E '^[[:space:]]*(#|$|[A-Za-z_][A-Za-z0-9_]*[[:space:]]*=)' "$work/lines" | cut -d: -f1); do
    problem "line $line is not a setting: write NAME=value, without export"
done
for name in $placeholders; do problem "$name is still a placeholder: fill it in"; done
for name in API_TARGET ORG_SLUG AGENT_ID; do
    [ -n "$(value $name)" ] || problem "$name is missing"
done
[ -n "$(value JWT)$(value JWT_FILE)" ] || problem "JWT and JWT_FILE are missing: set one"
for name in JWT SECURE_COMMAND_KEY; do
    [ -z "$(value $name)" ] || [ -z "$(value ${name}_FILE)" ] || problem "$name and ${name}_FILE are both set: remove one"
done
case $(value RELAY_STATE_DIR) in
'' | /var/lib/relay-agent) ;;
*) problem "RELAY_STATE_DIR is a path in the container: remove it; the state is in the volume $container-state" ;;
esac
drain=$(value RELAY_DRAIN_SECONDS)
case ${drain:-25} in
*[!0-9.]* | *.*.* | .* | ??????????*) problem "RELAY_DRAIN_SECONDS is not a number of seconds" && drain=25 ;;
esac
drain=$(printf '%s' "${drain%%.*}" | sed 's/^0*\(.\)/\1/')
stop_seconds=$((${drain:-25} + 15))

# Mounts the directory of each file, so that the container also sees a file that replaces it by a rename.
grep -v -E '^(CONTAINER_NAME|IMAGE_NAME|RELAY_STATE_DIR|(JWT|SECURE_COMMAND_KEY)_FILE|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|RELAY_CA_FILE|RELAY_POLICY_FILE)=' \
    "$work/set" >"$work/env" || :
set --
for name in JWT_FILE SECURE_COMMAND_KEY_FILE REQUESTS_CA_BUNDLE SSL_CERT_FILE RELAY_CA_FILE RELAY_POLICY_FILE; do
    path=$(value $name)
    case $path in
    '') continue ;;
    '<'*'>') continue ;;
    /*) ;;
    *) problem "$name must be an absolute path, beginning with /" && continue ;;
    esac
    if [ ! -f "$path" ]; then
        problem "$name: there is no file $path on this host"
        continue
    fi
    # A symbolic link out of its directory is broken in the container, so its target is mounted instead.
    real=$(readlink -f "$path")
    case $real in
    "$(readlink -f "$(dirname "$path")")"/*) ;;
    *) path=$real ;;
    esac
    case $(dirname "$path") in
    *[,\"]*) problem "$name: Docker cannot mount a path with a comma or a quote in it: $path" && continue ;;
    esac
    set -- "$@" --mount "type=bind,source=$(dirname "$path"),target=/run/host/$name,readonly"
    printf '%s\n' "$name=/run/host/$name/$(basename "$path")" >>"$work/env"
done
[ -z "$problems" ] || refuse "$env_file must be corrected:$problems"

docker image inspect "$image" >/dev/null 2>&1 ||
    refuse "there is no image $image" "Load it: docker load -i ts-agent-http-relay-v<version>.tar.gz, or name another: IMAGE_NAME=name:tag ./run.sh"

# --- One at a time -----------------------------------------------------------------------------------
# Two runs at the same time would each treat the other's container as the previous one. Without flock there is no lock.
place=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}
[ "$(id -u)" != 0 ] || place=/run  # Where no other user can hold the lock.
lock=$place/ts-agent-http-relay-$(id -u)-$container.lock
if command -v flock >/dev/null && (: >>"$lock") 2>/dev/null; then
    exec 9>>"$lock"
    waited=0
    # Many short waits, because a shell handles a signal only between two commands.
    until flock -n 9; do
        [ $waited -gt 0 ] || echo "Another run.sh is working on $container: waiting for it"
        if [ $waited -ge $((stop_seconds + 60)) ]; then
            fail "another run.sh is still working on $container" "To find its process: fuser -v $lock"
            exit 1
        fi
        waited=$((waited + 1))
        sleep 1
    done
fi

# --- Replace the existing container ------------------------------------------------------------------
state=$container-state
previous=$container-previous
if ! there "$container" && there "$previous"; then
    echo "An earlier run.sh was interrupted: renaming $previous back to $container"
    docker rename "$previous" "$container"
fi
if there "$container"; then
    # A container that another tool started may keep its state elsewhere. Keep using that state: it may hold accepted commands.
    kept=$(docker inspect --format \
        '{{range .Mounts}}{{if eq .Destination "/var/lib/relay-agent"}}{{if .Name}}{{.Name}}{{else}}{{.Source}}{{end}}{{end}}{{end}}' "$container")
    state=${kept:-$state}
    [ "$state" = "$container-state" ] || echo "Keeping the state of $container where it is: $state"
    docker rm --force "$previous" >/dev/null 2>&1 || :
    old=$(docker inspect --format '{{.Id}}' "$container")
    echo "Stopping the container $container (running requests may finish; up to $stop_seconds s)"
    changed=stopping
    docker stop -t "$stop_seconds" "$container" >/dev/null
    changed=replacing
    docker rename "$container" "$previous"
fi
changed=replacing
docker run --detach --name "$container" --cidfile "$work/made" \
    --net=host --restart=always \
    --ulimit core=0 --memory 1g --pids-limit 1024 \
    --read-only --tmpfs /tmp:rw,noexec,nosuid,nodev,mode=1777,size=320m \
    --cap-drop=ALL --security-opt no-new-privileges \
    --log-driver local \
    --stop-timeout "$stop_seconds" \
    --volume "$state:/var/lib/relay-agent" \
    --env-file "$work/env" "$@" "$image" >/dev/null 2>"$work/error" || {
    fail "Docker cannot start the container:" "$(cat "$work/error")"
    exit 1
}

# --- Does it stay up? --------------------------------------------------------------------------------
# Waits 15 s: the agent asks a platform that refuses it three times in ten seconds before it ends.
tries=0
while [ $tries -lt 75 ]; do
    state=$(docker inspect --format '{{.RestartCount}} {{.State.Running}} {{.State.ExitCode}}' "$container")
    case $state in
    "0 true "*) ;;
    *)
        docker update --restart=no "$container" >/dev/null 2>&1 || :
        fail "the agent ended at once; its last lines:"
        docker logs --tail 12 "$container" 2>&1 | sed 's/^/  /' >&2
        exit 1
        ;;
    esac
    docker logs "$container" 2>&1 | grep -q '"event":"agent-ready"' && break
    tries=$((tries + 1))
    sleep 0.2
done
changed=
[ -z "$old" ] || docker rm "$previous" >/dev/null
if [ $tries -lt 75 ]; then
    echo "The agent is ready: container $container, image $image"
else
    echo "The container $container runs with image $image, but the platform has not answered yet or the agent is disabled: docker logs $container"
fi
echo "To verify the installation: $here/verify.sh"
