#!/bin/sh
# Starts a sentinel. It keeps no state: at every start it knows no master (the operator tells it, or the dashboard),
# so that a sentinel that was away can't bring back an old one. Its id is fixed: a fresh one would leave a phantom
# voter behind at the others.
set -eu
secret=/etc/codis
own='' id=''
while read -r member address myid; do
  if [ "$member" = "$POD_NAME" ]; then own=$address id=$myid; fi
done <"$secret/sentinels"
if [ -z "$own" ]; then
  echo "sentinel: $POD_NAME is no sentinel of the cluster" >&2
  exit 1
fi
{
  cat "$secret/sentinel.conf"
  echo "sentinel myid $id"
  echo "sentinel announce-ip $own"
  echo 'sentinel announce-port 26379'
} >/data/sentinel.conf.new
mv /data/sentinel.conf.new /data/sentinel.conf
exec codis-server /data/sentinel.conf --sentinel
