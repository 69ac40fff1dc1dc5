#!/bin/sh
# Starts the relay agent's container, or replaces the existing one. Run it again after a change of the settings or the image.
set -eu
LC_ALL=C  # Treats values as bytes, whatever their encoding.
export LC_ALL

usage() {
    cat <<'HELP'
Usage: ./run.sh

Starts the relay agent with the settings in agent.env beside this script. Run it again after a change: it replaces the
container and keeps the state volume, so no accepted command is lost. First it checks the new settings (`relay-agent check`);
while they have errors, a running agent is left alone. The log of a start that failed is kept beside this script.

Environment (you can also set the last two in agent.env):
  RELAY_ENV_FILE         the settings file (default: agent.env beside this script)
  RELAY_CONTAINER_NAME   the container's name (default: ts-agent-http-relay). The state volume is that name with -state,
                         or the volume of the replaced container
  RELAY_IMAGE_NAME       the image (default: ts-agent-http-relay:latest)
ENV_FILE, CONTAINER_NAME and IMAGE_NAME mean the same; the names with RELAY_ take precedence. The script prints where each
comes from.

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
# --- The same in run.sh and verify.sh; a test compares them ---
# Where the settings file is named.
env_file=${RELAY_ENV_FILE:-${ENV_FILE:-$here/agent.env}}
if [ -n "${RELAY_ENV_FILE:-}" ]; then
    env_file_from="RELAY_ENV_FILE in the environment"
elif [ -n "${ENV_FILE:-}" ]; then
    env_file_from="ENV_FILE in the environment"
else
    env_file_from="beside this script"
fi
# A file's lines, without the byte order mark and carriage returns of Windows editors.
lines_of() { tr -d '\r' <"$1" | sed "1s/^$(printf '\357\273\277')//"; }
# The lines that set a variable to a value, without comments.
settings_of() {
    lines_of "$1" | sed -n 's/^[[:space:]]*\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*=[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*$/\1=\2/p'
}
value() { sed -n "s/^$1=//p" "$work/set" | tail -n 1; }
# A name that is exported in a shell must not decide unnoticed: those with RELAY_ take precedence, and the origin is printed.
choose() {
    eval "ours=\${RELAY_$1:-} plain=\${$1:-}"
    ours_inside=$(value "RELAY_$1")
    plain_inside=$(value "$1")
    if [ -n "$ours" ]; then
        chosen=$ours from="RELAY_$1 in the environment"
    elif [ -n "$ours_inside" ]; then
        chosen=$ours_inside from="RELAY_$1 in $env_file"
    elif [ -n "$plain" ]; then
        chosen=$plain from="$1 in the environment"
    elif [ -n "$plain_inside" ]; then
        chosen=$plain_inside from="$1 in $env_file"
    else
        chosen=$2 from="default"
    fi
    inside=${ours_inside:-$plain_inside}
    case $from in
    *"in the environment") [ -z "$inside" ] || [ "$inside" = "$chosen" ] || from="$from, instead of $inside in $env_file" ;;
    esac
}
# The running containers among those of $1 that have the AGENT_ID $2, unless both they and ours (if $3 is set) share the queue.
twins_of() {
    # shellcheck disable=SC2086
    docker inspect --format '{{println "/" .Name}}{{range .Config.Env}}{{println .}}{{end}}' $1 2>/dev/null | AGENT_ID=$2 SHARED=$3 awk '
        function tell() { if (same && !(shared && ENVIRON["SHARED"] != "")) printf " %s", name }
        /^\/ / { tell(); name = substr($0, 4); same = shared = 0 }
        tolower($0) == tolower("AGENT_ID=" ENVIRON["AGENT_ID"]) { same = 1 }
        tolower($0) ~ /^relay_shared_queue=(true|yes|on|1|t|y)$/ { shared = 1 }
        END { tell() }'
}
digest() { sha256sum | cut -d ' ' -f 1; }
# The variables of the scripts themselves, which the agent does not get, as a pattern.
of_scripts='^((RELAY_)?(CONTAINER_NAME|IMAGE_NAME|ENV_FILE)|LOG_DRIVER|DOCKER_OPTIONS|RELAY_STATE_DIR)='
# --- End of what is the same ---
lowest=20.10.21

# --- Docker ------------------------------------------------------------------------------------------
command -v docker >/dev/null || refuse "the docker command is not installed" "Install Docker $lowest or later: https://docs.docker.com/engine/install/"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) ||
    refuse "Docker does not answer" "Start it (systemctl start docker), and run this script as root or as a member of the group docker."
number() { printf '%s' "$1" | sed 's/[^0-9.].*//' | awk -F. '{printf "%d%03d%03d", $1, $2, $3}'; }
[ "$(number "$engine")" -ge "$(number "$lowest")" ] ||
    refuse "Docker $engine is too old" "Update Docker to $lowest or later."

# --- Settings ----------------------------------------------------------------------------------------
[ -f "$env_file" ] || refuse "there is no file $env_file" "Copy agent.env from the delivery to it, or name another file: RELAY_ENV_FILE=/path/to/agent.env ./run.sh"
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
    probe=$(cat "$work/probe" 2>/dev/null)
    [ -z "$probe" ] || $apart docker rm --force --volumes "$probe" >/dev/null 2>&1
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
        echo "run.sh: the previous container runs again, with its previous settings; $env_file contains other ones" >&2
    else
        echo "run.sh: the previous container does not start; try: docker start $container" >&2
    fi
}
trap 'trap "" INT TERM HUP PIPE; set +e; undo; rm -rf "$work"' EXIT
# A shell does not run the EXIT trap when a signal ends it. The trap may run within a function whose stderr is redirected.
exec 8>&2
trap 'trap "" INT TERM HUP PIPE; fail interrupted 2>&8; exit 1' INT TERM HUP PIPE

case $(od -An -tx1 -N2 "$env_file" | tr -d ' ') in
fffe | feff) refuse "$env_file is encoded in UTF-16" "Save it as UTF-8." ;;
esac
lines_of "$env_file" >"$work/lines"
settings_of "$env_file" >"$work/set"
choose CONTAINER_NAME ts-agent-http-relay
container=$chosen container_from=$from
choose IMAGE_NAME ts-agent-http-relay:latest
image=$chosen
echo "Settings:  $env_file ($env_file_from)"
echo "Container: $container ($container_from)"
echo "Image:     $image ($from)"

problems=
problem() { problems="$problems
  $1"; }
case $container in
[!A-Za-z0-9]* | *[!A-Za-z0-9_.-]*) problem "CONTAINER_NAME: Docker accepts only letters, digits and _ . -, not $container" ;;
esac
# Only if the whole value is a placeholder: a password may contain < and >.
placeholders=$(sed -n 's/^\([A-Za-z_0-9]*\)=<[^<>]*>$/\1/p' "$work/set" | sort -u)
malformed=$(grep -n -v -E '^[[:space:]]*(#|$|[A-Za-z_][A-Za-z0-9_]*[[:space:]]*=)' "$work/lines" | cut -d: -f1)
for line in $malformed; do
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
log_driver=$(value LOG_DRIVER)
log_driver=${log_driver:-local}
docker_options=$(value DOCKER_OPTIONS)
case $log_driver in
*[!A-Za-z0-9._/:-]*) problem "LOG_DRIVER is not the name of a log driver of Docker, such as json-file" ;;
esac
case " $docker_options " in
*" --log-driver"[\ =]*) problem "DOCKER_OPTIONS names a log driver: use LOG_DRIVER" ;;
esac
case $docker_options in
'' | -*) ;;
*) problem "DOCKER_OPTIONS must begin with an option of docker run, such as --log-opt" ;;
esac
case $log_driver,$docker_options in  # Docker's own default has no limit.
json-file,*max-size=*) ;;
json-file,*) docker_options="--log-opt max-size=20m --log-opt max-file=5 $docker_options" ;;
esac

# With SELinux a container reads only what has the label for containers. Docker labels the state volume. For bind mounts z does it, in
# directories that hold nothing but this agent's files: those of other programs would become unreadable for them.
selinux=no
case $(docker info --format '{{.SecurityOptions}}' 2>/dev/null) in *name=selinux*) selinux=yes ;; esac

# Mounts the directory of each file, so that the container also sees a file that replaces it by a rename.
grep -v -E -e "$of_scripts" -e '^((JWT|SECURE_COMMAND_KEY)_FILE|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|RELAY_CA_FILE|RELAY_POLICY_FILE)=' \
    "$work/set" >"$work/env" || :
: >"$work/paths"
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
    directory=$(dirname "$path")
    case $selinux,$directory in
    yes,*:*) labels= ;;  # A colon ends the path in --volume.
    yes,/etc/ts-agent-http-relay | yes,/etc/ts-agent-http-relay/* | yes,"$here"/*) labels=yes ;;
    *) labels= ;;
    esac
    if [ -n "$labels" ]; then
        set -- "$@" --volume "$directory:/run/host/$name:ro,z"
    else
        set -- "$@" --mount "type=bind,source=$directory,target=/run/host/$name,readonly"
        case $selinux,$(stat -L -c %C "$directory" 2>/dev/null) in
        no,* | yes,*:container_file_t:* | yes,*:container_ro_file_t:*) ;;
        *)
            echo "run.sh: SELinux may keep the container from reading $directory ($name): move the file to a directory of its own" >&2
            echo "  below /etc/ts-agent-http-relay, which this script labels, or label it yourself: see SELinux in install.md" >&2
            ;;
        esac
    fi
    # What names the file's path in the container is translated into that of this host.
    printf 's|/run/host/%s|%s|g\n' "$name" "$(dirname "$path" | sed 's/[\\&|]/\\&/g')" >>"$work/paths"
    printf '%s\n' "$name=/run/host/$name/$(basename "$path")" >>"$work/env"
done
set -f  # From here on words are split unquoted, and a value may contain * and ?.
# shellcheck disable=SC2086  # Separated by blanks.
not_of_the_log=$(printf '%s\n' $docker_options | awk '
    skip { skip = 0; next }
    /^--log-(opt|driver)$/ { skip = 1; next }
    /^--log-(opt|driver)=/ { next }
    { print }')
[ -z "$problems" ] || refuse "$env_file must be corrected:$problems"

docker image inspect "$image" >/dev/null 2>&1 ||
    refuse "there is no image $image" "Load it: docker load -i ts-agent-http-relay-v<version>.tar.gz, or name another: RELAY_IMAGE_NAME=name:tag ./run.sh"

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

# --- What is there -----------------------------------------------------------------------------------
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
    [ "$state" = "$container-state" ] || echo "The state of $container stays in $state"
    old=$(docker inspect --format '{{.Id}}' "$container")
fi

# Two agents with one id would both receive its commands.
true_word() { case $1 in [Tt]rue | TRUE | [Yy]es | YES | [Oo]n | ON | 1 | [TtYy]) return 0 ;; *) return 1 ;; esac }
others=$(docker ps -q --no-trunc | grep -v -x -F "${old:-none}" || :)
if [ -n "$others" ]; then
    shared=
    ! true_word "$(value RELAY_SHARED_QUEUE)" || shared=yes
    twins=$(twins_of "$others" "$(value AGENT_ID)" "$shared")
    for twin in $twins; do
        fail "warning: the containers $container and $twin have the same AGENT_ID: both receive its commands, and one may run twice" \
            "Stop one of them: docker stop -t 40 $twin. Or give each its own AGENT_ID"
    done
fi

# --- Check the new settings, before anything is stopped ------------------------------------------------
start() {
    docker run --net=host \
        --ulimit core=0 --memory 1g --pids-limit 1024 \
        --read-only --tmpfs /tmp:rw,noexec,nosuid,nodev,mode=1777,size=320m \
        --cap-drop=ALL --security-opt no-new-privileges \
        --log-driver "$log_driver" \
        --env-file "$work/env" "$@"
}
# Keeps what says why a start failed, and says where. Nobody else may read it.
keep() {
    name=failed-start-$container-$(date -u +%Y%m%dT%H%M%SZ).log
    kept_file=$here/$name
    (umask 077 && cat "$1" >"$kept_file") 2>/dev/null || {
        kept_file=$(mktemp "${TMPDIR:-/tmp}/$name.XXXXXX") && cat "$1" >"$kept_file"
    }
    chmod 0600 "$kept_file"
    printf '  The complete output is in %s (mode 0600)\n' "$kept_file" >&2
}
# The rows of check's report with this status, each with its cause and cure.
rows() {
    awk -v status="$1" '
        /^[^ ]/ { show = ($1 == status); sub(/^[a-z]+ +/, ""); sub(/ +[0-9.]+ s /, ":") }
        /^ / { $0 = substr($0, 7) }
        /^$/ { show = 0 }
        show { print "  " $0 }' "$work/report"
}
# Without the state, if there is none yet: the check must not create the volume.
place_of_state=
if [ -n "$old" ] || docker volume inspect "$state" >/dev/null 2>&1; then place_of_state="--volume=$state:/var/lib/relay-agent"; fi
code=0
echo "Checking the settings (up to 30 s)"
# Its report is for people, so it must not go where the log driver sends the log. That driver is tried with a container that says nothing.
# In the background, because a shell handles a signal only between two commands.
# shellcheck disable=SC2086
start --rm --cidfile "$work/probe" "$@" $docker_options --entrypoint python3 "$image" -c "" >/dev/null 2>"$work/error" &
wait $! || { fail "Docker cannot start the container; nothing was changed:" "$(cat "$work/error")" && exit 1; }
rm -f "$work/probe"
# shellcheck disable=SC2086
start --rm --cidfile "$work/probe" ${place_of_state:+"$place_of_state"} "$@" $not_of_the_log --log-driver none "$image" check --ignore-running >"$work/raw" 2>"$work/error" &
wait $! || code=$?
rm -f "$work/probe"
sed -f "$work/paths" "$work/raw" >"$work/report"
if [ "$code" -ge 125 ] && [ "$code" -le 127 ]; then
    fail "Docker cannot start the container; nothing was changed:" "$(cat "$work/error")"
    exit 1
elif ! grep -q -E '^[a-z]+ +configuration ' "$work/report"; then
    echo "The settings were not checked: the image $image has no \`check\` command, or the check was interrupted"
elif [ "$code" != 0 ]; then
    rows error >"$work/errors"
    ready=
    [ -z "$old" ] || ! docker exec "$old" relay-agent status >/dev/null 2>&1 || ready=yes
    advice="Correct them, and run this script again"
    # The agent waits for anything else by itself.
    if grep -q -E '^  (configuration|token|access|agent|state-dir):' "$work/errors"; then
        fail "the agent cannot start with these settings:"
    elif [ -n "$ready" ]; then
        fail "the agent would not become ready with these settings:"
        advice="To replace it nevertheless, stop it first: docker stop -t $stop_seconds $container"
    else
        fail "the agent will start, but will not be ready until this is corrected:"
        ready=no
    fi
    cat "$work/errors" >&2
    if [ "$ready" != no ]; then
        keep "$work/report"
        [ -z "$old" ] || ! runs "$old" ||
            printf '  The container %s still runs with its previous settings; %s contains other ones\n' "$container" "$env_file" >&2
        printf '  %s\n' "$advice" >&2
        exit 2
    fi
fi
rows warning | awk '/^  [^ ]/ { show = !/^  secure-key:/; sub(/^  /, "Remark: ") } show' || :

# --- Replace the existing container ------------------------------------------------------------------
if [ -n "$old" ]; then
    docker rm --force "$previous" >/dev/null 2>&1 || :
    echo "Stopping the container $container (running requests may finish; up to $stop_seconds s)"
    changed=stopping
    docker stop -t "$stop_seconds" "$container" >/dev/null
    changed=replacing
    docker rename "$container" "$previous"
fi
changed=replacing
# shellcheck disable=SC2086
start --detach --name "$container" --cidfile "$work/made" --restart=always \
    --stop-timeout "$stop_seconds" \
    --label "org.tetrascience.settings-file=$(readlink -f "$env_file")" \
    --label "org.tetrascience.docker-options=$(value DOCKER_OPTIONS | digest)" \
    --volume "$state:/var/lib/relay-agent" \
    "$@" $docker_options "$image" >/dev/null 2>"$work/error" || {
    fail "Docker cannot start the container:" "$(cat "$work/error")"
    exit 1
}

# --- Does it stay up? --------------------------------------------------------------------------------
# A text of the last log line that says why the agent ended, in words.
why() { sed -n "s/.*\"$1\":\"\(\([^\"\\\\]\|\\\\.\)*\)\".*/\1/p" "$work/line" | sed 's/\\\(["\\]\)/\1/g'; }
# Waits 15 s: the agent asks a platform that refuses it three times within 15 s before it ends.
tries=0
while [ $tries -lt 75 ]; do
    found=$(docker inspect --format '{{.RestartCount}} {{.State.Running}} {{.State.ExitCode}}' "$container")
    case $found in
    "0 true "*) ;;
    *)
        docker update --restart=no "$container" >/dev/null 2>&1 || :
        docker logs "$container" 2>&1 | sed -f "$work/paths" >"$work/log"
        grep -E '^\{"event":"(start-failed|agent-giving-up)"' "$work/log" | tail -n 1 >"$work/line" || :
        # Docker may have started it again, so that its exit code is no longer known; the line has it.
        code=$(sed -n 's/.*"code":\([0-9]*\).*/\1/p' "$work/line")
        [ -n "$code" ] || [ "${found##* }" = 0 ] || code=${found##* }
        fail "the agent ended at once${code:+ (exit code $code)}:"
        if [ -s "$work/line" ]; then
            printf '  %s\n' "$(why reason)" >&2
            for part in cause cure; do [ -z "$(why $part)" ] || printf '    %-6s %s\n' "$part" "$(why $part)" >&2; done
        else
            echo "  The log gives no reason. Its last lines:" >&2
            tail -n 5 "$work/log" | sed 's/^/  /' >&2
        fi
        keep "$work/log"
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
