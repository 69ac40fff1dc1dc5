#!/bin/sh
# Writes the delivery for an administrator to dist/: images, scripts, checksums, image ids, bills of materials.
# Environment:
#   SIGN   a private key to sign SHA256SUMS with: one of minisign, or a PEM file for openssl (EC or RSA); default: not signed
set -eu
sign=${SIGN:+$(readlink -f "$SIGN")}
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' relay_agent/__init__.py)
name=ts-agent-http-relay
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)
rm -rf dist
mkdir dist

save() {
    docker image inspect "$1:v$version" >/dev/null 2>&1 || { echo "dist: there is no image $1:v$version; make image builds it" >&2; exit 1; }
    docker save -o "dist/$1-v$version.tar" "$1:v$version"
    gzip -n -6 "dist/$1-v$version.tar"
}
save "$name"
save "$name-sandbox"
docker image inspect --format '{{.Id}}' "$name:v$version" >dist/IMAGE_ID

container=$(docker create --label org.tetrascience.build=dist "$name:v$version")
trap 'docker rm --force --volumes "$container" >/dev/null' EXIT
docker cp "$container:/usr/share/relay-agent/sbom.cdx.json" "dist/$name-v$version.sbom.cdx.json" >/dev/null 2>&1
[ -s "dist/$name-v$version.sbom.cdx.json" ] || { echo "dist: the image contains no bill of materials" >&2; exit 1; }
docker cp "$container:/usr/share/relay-agent/manifest.sha256" "dist/$name-v$version.manifest.sha256" >/dev/null 2>&1
[ -s "dist/$name-v$version.manifest.sha256" ] || { echo "dist: the image contains no manifest" >&2; exit 1; }

# Makes the scripts name the delivered image.
mkdir dist/podman dist/kubernetes
chart=kubernetes/ts-agent-http-relay
cp -R "docker/$chart" dist/kubernetes/
find "dist/$chart" -name '*.tgz' -delete
for file in run.sh verify.sh agent.env compose.yml .env ts-agent-http-relay.service podman/ts-agent-http-relay.container kubernetes/settings.yaml kubernetes/agent.yaml kubernetes/retire.yaml; do
    sed "s/\(ts-agent-http-relay\(-sandbox\)\{0,1\}\):latest/\1:v$version/g" "docker/$file" >"dist/$file"
done
chmod 0755 dist/run.sh dist/verify.sh
chmod 0600 dist/agent.env
cp LICENSE dist/
# The guide and the pages that it links to; a link to a page outside the delivery becomes plain text.
for page in install podman kubernetes operations troubleshooting logs protocol validation policy several-agents threat-model durability; do
    sed -E '/^!\[/d; s#\[([^]]*)\]\((\.\./|images/|design\.md|testing\.md|http-truth\.md|senders\.md)[^)]*\)#\1#g' "docs/$page.md" >"dist/$page.md"
done
mkdir dist/monitoring
for file in alerts.yml alerts_test.yml dashboard.json textfile.sh check_relay_agent.sh; do cp "docs/monitoring/$file" dist/monitoring/; done
chmod 0755 dist/monitoring/*.sh
sed -E '/^!\[/d; s#\[([^]]*)\]\(\.\./(\.\./|images/)[^)]*\)#\1#g' docs/monitoring/README.md >dist/monitoring/README.md
sed -E 's#\[([^]]*)\]\((docs/|README|SECURITY)[^)]*\)#\1#g' CHANGELOG.md >dist/CHANGELOG.md
find dist -exec touch -d "@$epoch" {} +
# All files: agent.env and .env decide what starts, too. verify.sh knows that administrators edit these two.
sums=$(cd dist && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum)
printf '%s\n' "$sums" >dist/SHA256SUMS

[ -z "$sign" ] || docker/tools/sign.sh dist/SHA256SUMS "$sign"
ls -lA dist
