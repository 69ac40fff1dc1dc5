#!/bin/sh
# A plugin for Nagios, Icinga, Zabbix and cron, for an agent in a container: runs `relay-agent check --nagios` in it, prints its line
# and ends with its code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. A container that does not run, restarts again and again, or is paused
# is CRITICAL.
#
#   check_relay_agent.sh [CONTAINER [OPTION of check]...]      ENGINE=podman for Podman
set -u
engine=${ENGINE:-docker}
container=${1:-ts-agent-http-relay}
[ $# = 0 ] || shift

line=$("$engine" exec "$container" relay-agent check --nagios "$@" 2>&1)
code=$?
case $line in
"RELAY AGENT "*) printf '%s\n' "$line"; exit $code ;;
esac
# The engine could not run it: its own codes (1, 125 to 127) do not mean what a plugin's mean.
why=$(printf '%s' "$line" | tr '|\n' '/ ' | cut -c 1-300)
format='{{.State.Running}} {{.State.Restarting}} {{.State.Paused}}'
if found=$("$engine" container inspect --format "$format" "$container" 2>&1); then
    case $found in
    "true false false")
        echo "RELAY AGENT UNKNOWN - $why"
        exit 3
        ;;
    *true)
        echo "RELAY AGENT CRITICAL - the container $container is paused: $engine unpause $container"
        ;;
    *)
        echo "RELAY AGENT CRITICAL - the container $container does not stay up; the last lines of its log say why: $engine logs --tail 20 $container"
        ;;
    esac
    exit 2
fi
case $found in
*[Nn]"o such container"*)
    echo "RELAY AGENT CRITICAL - there is no container $container"
    exit 2
    ;;
esac
echo "RELAY AGENT UNKNOWN - $engine does not answer, or this user may not use it: $(printf '%s' "$found" | tr '|\n' '/ ' | cut -c 1-300)"
exit 3
