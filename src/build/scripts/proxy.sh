#!/bin/sh
# Starts a proxy, once the dashboard holds its lock (`/topom` answers 200): a proxy that can't register gives up after
# 30 s (contract §8.3).
set -eu
secret=/etc/codis
dashboard=$(cat "$secret/dashboard-address")
# A shell as process 1 ignores SIGTERM unless told otherwise, and sleeps through it unless it waits.
trap 'exit 0' TERM INT
until codis-admin "--dashboard=$dashboard" config >/dev/null 2>&1; do
  sleep 1 &
  wait $!
done
config=$secret/proxy.toml
# By its zone the dashboard tells which replicas are near (contract §6.5). A person's word on it goes first.
if [ -n "${ZONE:-}" ] && ! grep -q '^proxy_datacenter ' "$config"; then
  umask 077
  { cat "$config" && echo "proxy_datacenter = \"$ZONE\""; } >/data/proxy.toml
  config=/data/proxy.toml
fi
exec codis-proxy "--ncpu=$NCPU" "--max-ncpu=$NCPU" -c "$config" "--dashboard=$dashboard" \
  "--host-admin=$POD_IP:11080" "--host-proxy=$POD_IP:19000"
