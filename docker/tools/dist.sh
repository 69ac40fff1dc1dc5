#!/bin/sh
# Writes the delivery for an administrator to dist/: images, scripts, checksums, image ids, bills of materials.
set -eu
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

# Makes the scripts name the delivered image.
for file in run.sh verify.sh agent.env compose.yml .env ts-agent-http-relay.service; do
    sed "s/\(ts-agent-http-relay\(-sandbox\)\{0,1\}\):latest/\1:v$version/g" "docker/$file" >"dist/$file"
done
chmod 0755 dist/run.sh dist/verify.sh
chmod 0600 dist/agent.env
cp LICENSE dist/
# The guide and the pages that it links to; a link to a page outside the delivery becomes plain text.
for page in install troubleshooting logs protocol; do
    sed -E 's#\[([^]]*)\]\((\.\./|images/|monitoring/|design\.md|operations\.md|durability\.md)[^)]*\)#\1#g' "docs/$page.md" >"dist/$page.md"
done
touch -d "@$epoch" dist/* dist/.env
# Without agent.env and .env, because administrators edit them.
sums=$(cd dist && find . -type f ! -name agent.env ! -name .env -printf '%P\n' | LC_ALL=C sort | xargs sha256sum)
printf '%s\n' "$sums" >dist/SHA256SUMS
ls -lA dist
