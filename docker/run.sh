#!/bin/sh
# Starts the relay agent's container, or replaces the one that is there. Safe to run again: for new settings, or a new image.
set -eu

usage() {
    cat <<'HELP'
Usage: ./run.sh

Starts the relay agent with the settings of agent.env beside this script. Run it again after a change: it replaces the
container; what the agent has accepted is kept in the state volume.

Environment (CONTAINER_NAME and IMAGE_NAME may stand in agent.env as well):
  ENV_FILE         another file of settings
  CONTAINER_NAME   ts-agent-http-relay; the state volume is CONTAINER_NAME-state, or that of the
                   container that is replaced
  IMAGE_NAME       ts-agent-http-relay:latest

Exit codes: 0 started, 1 it could not be started, 2 something must be put right first.
HELP
}

fail() { printf 'run.sh: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; }
refuse() { fail "$@"; exit 2; }

case ${1:-} in
-h | --help) usage; exit 0 ;;
?*) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
env_file=${ENV_FILE:-$here/agent.env}
lowest=20.10.21

# --- Docker ------------------------------------------------------------------------------------------
command -v docker >/dev/null || refuse "there is no docker command here" "Install Docker $lowest or later: https://docs.docker.com/engine/install/"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) ||
    refuse "Docker does not answer" "Is it running (systemctl start docker)? May you use it? Run this script as root or in the group docker."
number() { printf '%s' "$1" | sed 's/[^0-9.].*//' | awk -F. '{printf "%d%03d%03d", $1, $2, $3}'; }
[ "$(number "$engine")" -ge "$(number "$lowest")" ] ||
    refuse "Docker $engine is too old" "Update Docker to $lowest or later."

# --- Settings ----------------------------------------------------------------------------------------
[ -f "$env_file" ] || refuse "there is no file $env_file" "Copy agent.env from the delivery there, or name another: ENV_FILE=/path/to/agent.env ./run.sh"
[ -r "$env_file" ] || refuse "$env_file cannot be read" "Run this script as its owner, or as root."
case $(stat -L -c %a "$env_file") in
*00) ;;
*) refuse "$env_file may be read by others, and holds secrets" "chmod 0600 $env_file" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A shell does not run that at a signal; put_back is known from here on, and does nothing before something was changed.
changed=
previous=
interrupted() {
    trap '' INT TERM HUP
    fail "interrupted"
    [ -z "$changed" ] || put_back
    exit 1
}
trap interrupted INT TERM HUP
there() { [ "$(docker container inspect --format '{{.Name}}' "$1" 2>/dev/null)" = "/$1" ]; }  # By its name, not by the start of an id.
put_back() {
    if [ -n "$previous" ] && there "$previous"; then
        docker rm --force "$container" >/dev/null 2>&1 || :
        docker rename "$previous" "$container"
    elif [ "$changed" = made ]; then
        docker rm --force "$container" >/dev/null 2>&1 || :
    fi
    if [ -n "$previous" ]; then
        docker start "$container" >/dev/null && echo "run.sh: the container that was there before runs again" >&2
    fi
    exit 1
}
chmod 0700 "$work"
# Only what is set: comments and empty variables go, and the carriage returns of a Windows editor.
tr -d '\r' <"$env_file" | sed -n 's/^[[:space:]]*\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*=[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*$/\1=\2/p' >"$work/set"
value() { sed -n "s/^$1=//p" "$work/set" | tail -n 1; }

container=${CONTAINER_NAME:-$(value CONTAINER_NAME)}
container=${container:-ts-agent-http-relay}
image=${IMAGE_NAME:-$(value IMAGE_NAME)}
image=${image:-ts-agent-http-relay:latest}

problems=
problem() { problems="$problems
  $1"; }
placeholders=$(sed -n 's/^\([A-Za-z_0-9]*\)=.*<[^<>]*>.*/\1/p' "$work/set" | sort -u)
for name in $placeholders; do problem "$name is still a placeholder: fill it in"; done
for name in API_TARGET ORG_SLUG AGENT_ID; do
    [ -n "$(value $name)" ] || problem "$name is missing"
done
[ -n "$(value JWT)$(value JWT_FILE)" ] || problem "JWT is missing, and so is JWT_FILE"
for name in JWT SECURE_COMMAND_KEY; do
    [ -z "$(value $name)" ] || [ -z "$(value ${name}_FILE)" ] || problem "$name and ${name}_FILE are both set: keep one"
done
case $(value RELAY_STATE_DIR) in
'' | /var/lib/relay-agent) ;;
*) problem "RELAY_STATE_DIR is a path in the container: remove it, the state is in the volume $container-state" ;;
esac
drain=$(value RELAY_DRAIN_SECONDS)
case ${drain:-25} in
*[!0-9.]* | *.*.*) problem "RELAY_DRAIN_SECONDS is no number of seconds" && drain=25 ;;
esac
drain=$(printf '%s' "${drain%%.*}" | sed 's/^0*\(.\)/\1/')
stop_seconds=$((${drain:-25} + 15))

# A file of this host is mounted with its directory, so that a file put in its place by a rename is seen too.
grep -v -E '^(CONTAINER_NAME|IMAGE_NAME|RELAY_STATE_DIR|(JWT|SECURE_COMMAND_KEY)_FILE|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|RELAY_CA_FILE|RELAY_POLICY_FILE)=' \
    "$work/set" >"$work/env" || :
set --
for name in JWT_FILE SECURE_COMMAND_KEY_FILE REQUESTS_CA_BUNDLE SSL_CERT_FILE RELAY_CA_FILE RELAY_POLICY_FILE; do
    path=$(value $name)
    case $path in
    '') continue ;;
    *'<'*) continue ;;
    /*) ;;
    *) problem "$name must be a whole path, beginning with /" && continue ;;
    esac
    if [ ! -f "$path" ]; then
        problem "$name: there is no file $path on this host"
        continue
    fi
    set -- "$@" --volume "$(dirname "$path"):/run/host/$name:ro"
    echo "$name=/run/host/$name/$(basename "$path")" >>"$work/env"
done
[ -z "$problems" ] || refuse "$env_file must be put right:$problems"

docker image inspect "$image" >/dev/null 2>&1 ||
    refuse "there is no image $image here" "Load it: docker load -i ts-agent-http-relay-v<version>.tar.gz, or name another: IMAGE_NAME=name:tag ./run.sh"

# --- Replace what is there ---------------------------------------------------------------------------
state=$container-state
if there "$container"; then
    # A container that something else started may keep its state elsewhere; what it has accepted must not be left behind there.
    kept=$(docker inspect --format \
        '{{range .Mounts}}{{if eq .Destination "/var/lib/relay-agent"}}{{if .Name}}{{.Name}}{{else}}{{.Source}}{{end}}{{end}}{{end}}' "$container")
    state=${kept:-$state}
    [ "$state" = "$container-state" ] || echo "The state stays where $container has it: $state"
    previous=$container-previous
    docker rm --force "$previous" >/dev/null 2>&1 || :
    echo "Stopping the container $container (it may finish what runs, up to $stop_seconds s)"
    changed=stopped
    docker stop -t "$stop_seconds" "$container" >/dev/null
    docker rename "$container" "$previous"
fi
changed=made
docker run --detach --name "$container" \
    --net=host --restart=always \
    --ulimit core=0 --memory 1g --pids-limit 1024 \
    --read-only --tmpfs /tmp:rw,noexec,nosuid,nodev,mode=1777,size=320m \
    --cap-drop=ALL --security-opt no-new-privileges \
    --log-driver local \
    --stop-timeout "$stop_seconds" \
    --volume "$state:/var/lib/relay-agent" \
    --env-file "$work/env" "$@" "$image" >"$work/id" 2>"$work/error" || {
    fail "Docker does not start it:" "$(cat "$work/error")"
    put_back
}

# --- Did it stay? ------------------------------------------------------------------------------------
# A platform that refuses the agent is asked three times, in ten seconds.
tries=0
while [ $tries -lt 75 ]; do
    state=$(docker inspect --format '{{.RestartCount}} {{.State.Running}} {{.State.ExitCode}}' "$container")
    case $state in
    "0 true "*) ;;
    *)
        docker update --restart=no "$container" >/dev/null 2>&1 || :
        fail "the agent ended at once; it says:"
        docker logs --tail 12 "$container" 2>&1 | sed 's/^/  /' >&2
        put_back
        ;;
    esac
    docker logs "$container" 2>&1 | grep -q '"event":"agent-ready"' && break
    tries=$((tries + 1))
    sleep 0.2
done
[ -z "$previous" ] || docker rm "$previous" >/dev/null
if [ $tries -lt 75 ]; then
    echo "The agent is ready: container $container, image $image"
else
    echo "The container $container runs with image $image; the platform has not answered yet, or has the agent disabled: docker logs $container"
fi
echo "Look whether all is well: $here/verify.sh"
