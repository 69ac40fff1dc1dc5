#!/bin/sh
# Copies the metrics of an agent on this machine into a file for the node exporter's textfile collector, with the label agent="NAME".
# Removes the file if no agent answers, so that nobody mistakes old values for new ones. Run it as root or as the agent's user:
#
#   textfile.sh STATE_DIR FILE.prom [NAME]
set -eu
state=$1 file=$2 name=${3:-$(hostname)}
case $name in *[!A-Za-z0-9._-]* | '') echo "NAME may hold letters, digits, dots, dashes and underscores: $name" >&2; exit 2 ;; esac

# In the directory itself, because the path of a socket is limited to 107 bytes.
if ! found=$(cd "$state" && curl -fsS --max-time 10 --unix-socket admin.sock http://localhost/metrics); then
    rm -f "$file"
    exit 1
fi
new=$(mktemp "$file.XXXXXX")
trap 'rm -f "$new"' EXIT
printf '%s\n' "$found" | sed "/^#/!{s/^\([a-z_]*\){/\1{agent=\"$name\",/;s/^\([a-z_]*\) /\1{agent=\"$name\"} /;}" >"$new"
chmod 0644 "$new"
mv "$new" "$file"
