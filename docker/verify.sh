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
checksum of every delivered file that is there. With the vendor's public key beside it (signing-key.pub, of openssl or
minisign), it verifies the signature of SHA256SUMS too.

Environment (you can also set the last two in agent.env):
  RELAY_ENV_FILE         the settings file (default: agent.env beside this script)
  RELAY_CONTAINER_NAME   the container's name (default: ts-agent-http-relay)
  RELAY_IMAGE_NAME       the image that run.sh would start (default: ts-agent-http-relay:latest)
ENV_FILE, CONTAINER_NAME and IMAGE_NAME mean the same; the names with RELAY_ take precedence.

Exit codes: 0 everything is correct, 1 something is wrong, 2 could not verify.
HELP
}
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
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/set"
[ ! -r "$env_file" ] || settings_of "$env_file" >"$work/set"
choose IMAGE_NAME ts-agent-http-relay:latest
wanted_image=$chosen
choose CONTAINER_NAME ts-agent-http-relay
container=$chosen container_from=$from
bad=0
first=
differs=
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
        echo "GOOD: $container runs the agent, which is Online and waits for commands$differs."
        exit 0
    fi
    echo "BAD: $first$([ "$bad" = 1 ] || echo " (and $((bad - 1)) more)")"
    exit 1
}

note names "container $container ($container_from)"
note names "settings $env_file ($env_file_from)"

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
    # Only a key that came another way than the delivery proves anything, so the delivery contains none.
    key=$here/signing-key.pub
    signature=
    for name in SHA256SUMS.sig SHA256SUMS.minisig; do [ ! -f "$here/$name" ] || signature=$name; done
    if [ ! -f "$key" ]; then
        [ -z "$signature" ] || note signature "not verified: put the vendor's public key beside this script, as signing-key.pub"
    elif [ -z "$signature" ]; then
        wrong signature "there is signing-key.pub, but no signature of SHA256SUMS" "fetch the delivery again, from a source you trust"
    else
        case $(head -n 1 "$key") in
        *BEGIN*) tool=openssl signature=SHA256SUMS.sig ;;
        *) tool=minisign signature=SHA256SUMS.minisig ;;
        esac
        if ! command -v "$tool" >/dev/null; then
            wrong signature "cannot verify it: signing-key.pub is a key of $tool, which is not installed" "install $tool"
        elif
            case $tool in
            openssl) openssl dgst -sha256 -verify "$key" -signature "$here/$signature" "$here/SHA256SUMS" >/dev/null 2>&1 ;;
            *) minisign -V -q -p "$key" -x "$here/$signature" -m "$here/SHA256SUMS" >/dev/null 2>&1 ;;
            esac
        then
            ok signature "SHA256SUMS is signed with the key in signing-key.pub ($signature)"
        else
            wrong signature "$signature is not a signature of SHA256SUMS with the key in signing-key.pub" "do not use the delivery; fetch it again, from a source you trust"
        fi
    fi
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
        elif [ "$name" = agent.env ]; then
            note files "changed since the delivery, as expected: agent.env"
            continue
        elif [ "$name" = .env ]; then
            note files "changed since the delivery: .env, which decides what compose starts. If you did not change it, do not use it"
            continue
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
    [ -z "$absent" ] || note files "missing:$absent"
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
    wrong running "there is no container $container" "start it: ./run.sh, or name another: RELAY_CONTAINER_NAME=name ./verify.sh"
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

# --- The settings: those of the file, or others? ------------------------------------------------------
look '{{range .Config.Env}}{{println .}}{{end}}' >"$work/runs"
# run.sh mounts the directory of a file at /run/host/NAME; here the file is named by its path on this host.
look '{{range .Mounts}}{{if eq .Type "bind"}}{{println .Destination .Source}}{{end}}{{end}}' |
    sed -n 's/[\\&|]/\\&/g; s/^\(\/run\/host\/[A-Z_]*\) \(.*\)$/s|\1|\2|g/p' >"$work/paths"
on_this_host() { sed -f "$work/paths"; }
started_with=$(look '{{index .Config.Labels "org.tetrascience.settings-file"}}')
if [ -r "$started_with" ]; then
    docker image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$id" >"$work/image" 2>/dev/null || :
    settings_of "$started_with" | grep -v -E "$of_scripts" | while IFS= read -r line; do
        case ${line%%=*} in
        JWT_FILE | SECURE_COMMAND_KEY_FILE | REQUESTS_CA_BUNDLE | SSL_CERT_FILE | RELAY_CA_FILE | RELAY_POLICY_FILE)
            path=${line#*=}
            real=$(readlink -f "$path" || echo "$path")
            case $real in
            "$(readlink -f "$(dirname "$path")")"/*) ;;
            *) line=${line%%=*}=$real ;;
            esac
            ;;
        esac
        printf '%s\n' "$line"
    done >"$work/wanted"
    on_this_host <"$work/runs" >"$work/found"
    changed=$(awk '
        { name = $0; sub(/=.*/, "", name) }
        FILENAME ~ /image$/ { image[$0] = 1; next }
        FILENAME ~ /wanted$/ { wanted[name] = $0; next }
        !($0 in image) || name in wanted { found[name] = $0 }
        END {
            for (name in wanted) if (wanted[name] != found[name]) print name
            for (name in found) if (!(name in wanted)) print name
        }' "$work/image" "$work/wanted" "$work/found" | sort -u | tr '\n' ' ')
    [ "$(look '{{.Config.Image}}')" = "$wanted_image" ] || changed="${changed}IMAGE_NAME "
    started() { settings_of "$started_with" | sed -n "s/^$1=//p" | tail -n 1; }
    driver=$(started LOG_DRIVER)
    [ "$(look '{{.HostConfig.LogConfig.Type}}')" = "${driver:-local}" ] || changed="${changed}LOG_DRIVER "
    options=$(look '{{index .Config.Labels "org.tetrascience.docker-options"}}')
    [ "${options:-unknown}" = unknown ] || [ "$options" = "$(started DOCKER_OPTIONS | digest)" ] || changed="${changed}DOCKER_OPTIONS "
    if [ -n "$changed" ]; then
        note settings "the settings in $started_with differ from those of the running container: ${changed% }. To apply them, run ./run.sh"
        differs=", but not with the settings in $started_with"
    fi
    [ "$started_with" = "$(readlink -f "$env_file")" ] || note settings "it was started with $started_with, not with $env_file"
fi
agent_id=$(sed -n 's/^AGENT_ID=//p' "$work/runs" | tail -n 1)
others=$(docker ps -q --no-trunc | grep -v -x -F "$(look '{{.Id}}')" || :)
if [ -n "$agent_id" ] && [ -n "$others" ]; then
    shared=$(grep -i -x -E 'RELAY_SHARED_QUEUE=(true|yes|on|1|t|y)' "$work/runs" || :)
    twins=$(twins_of "$others" "$agent_id" "$shared")
    for twin in $twins; do
        note agent-id "$container and $twin have the same AGENT_ID: both receive its commands, and one may run twice. Stop one: docker stop -t 40 $twin"
    done
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
    wrong online "$([ -n "$beat" ] && echo "no heartbeat for $age s" || echo "no heartbeat yet"), so the platform does not show it as Online" "docker exec $container relay-agent check"
fi
printf '%s' "$facts" | grep -o '"remark": *"\([^"\\]\|\\.\)*"' | sed 's/^"remark": *"//; s/"$//; s/\\\(["\\]\)/\1/g' | on_this_host |
    while IFS= read -r remark; do note expiry "$remark"; done
case $(fact state) in
ready) ok commands "$(fact sentence)" ;;
'') ;;
*) wrong commands "$(fact sentence)" "docker exec $container relay-agent status shows cause and cure" ;;
esac
finish
