#!/bin/sh
# Signs a file, for verify.sh: with openssl as FILE.sig, with minisign as FILE.minisig.
# Usage: docker/tools/sign.sh FILE KEY   (KEY: a private key of minisign, or a PEM file for openssl, EC or RSA)
# The public key is not part of the delivery: who can replace the delivery could replace that key as well.
set -eu
file=$1
key=$2
fail() { echo "sign: $*" >&2; exit 1; }
[ -r "$key" ] || fail "cannot read the key $key"
rm -f "$file.sig" "$file.minisig"
if grep -q 'PRIVATE KEY' "$key"; then
    openssl dgst -sha256 -sign "$key" -out "$file.sig" "$file" ||
        fail "openssl cannot sign with $key; make an EC or RSA key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
    echo "Signed $file. Give administrators the public key another way: openssl pkey -in $key -pubout -out signing-key.pub"
else
    command -v minisign >/dev/null || fail "$key is no PEM file for openssl, and minisign is not installed"
    minisign -S -s "$key" -m "$file" -x "$file.minisig"
    echo "Signed $file. Give administrators the public key another way: minisign -R -s $key -p signing-key.pub"
fi
