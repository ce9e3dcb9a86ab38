#!/bin/sh
# Certificates for what the aggregators lean on: etcd, PostgreSQL, S3; not for members.
# An authority of its own: whoever steals a database's key must not pass for a member.
#
#   certificates.sh OUT NAME=host-or-address[,another...] ...
#
# OUT/ca.key stays on the offline machine. Each NAME gets OUT/NAME/{ca.crt,tls.crt,tls.key},
# good as server and as client (etcd's members are both), for 397 days. What is there stays:
# to renew one, remove OUT/NAME/tls.crt (the key stays) and run the same command again.
set -eu
umask 077
if [ $# -lt 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
out=$1
shift
mkdir -p "$out"
if [ ! -f "$out/ca.crt" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -noenc -sha384 \
    -days 3650 -subj "/CN=fedsecure infrastructure" \
    -addext "basicConstraints=critical,CA:true,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$out/ca.key" -out "$out/ca.crt" 2> /dev/null
fi
for one in "$@"; do
  name=${one%%=*}
  hosts=${one#*=}
  case "$name" in *[!a-z0-9-]* | "" | ca) echo "NAME=$name: use a-z, 0-9 and '-'" >&2; exit 2 ;; esac
  case "$one" in *=?*) ;; *) echo "$one: say NAME=host" >&2; exit 2 ;; esac
  folder=$out/$name
  mkdir -p "$folder"
  cp "$out/ca.crt" "$folder/ca.crt"
  [ -f "$folder/tls.key" ] || openssl genpkey -algorithm EC \
    -pkeyopt ec_paramgen_curve:P-256 -out "$folder/tls.key"
  [ -f "$folder/tls.crt" ] && continue
  names=
  for host in $(printf %s "$hosts" | tr , ' '); do
    case "$host" in *:*) kind=IP ;; *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac
    names=${names:+$names,}$kind:$host
  done
  openssl req -new -key "$folder/tls.key" -subj "/CN=$name" -out "$folder/.csr"
  openssl x509 -req -in "$folder/.csr" -CA "$out/ca.crt" -CAkey "$out/ca.key" \
    -CAcreateserial -CAserial "$out/.serial" -days 397 -sha384 -out "$folder/tls.crt" \
    -extfile /dev/stdin 2> /dev/null << EXTENSIONS
basicConstraints=critical,CA:false
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names
authorityKeyIdentifier=keyid
subjectKeyIdentifier=hash
EXTENSIONS
  rm "$folder/.csr"
  echo "$folder: $names"
done
