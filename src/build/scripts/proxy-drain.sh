#!/bin/sh
# What a proxy does before it is told to stop (preStop): SIGTERM cuts all of its clients (contract §14), so it stays until
# none is connected. $1: seconds until nobody sends it new ones; $2: seconds that it waits for its clients at most.
# One that has stopped answering keeps nobody waiting. It is asked three times: a PING waits, too, while slots are locked.
set -eu
# Seconds since the machine started.
now() {
  read -r seconds _ </proc/uptime
  echo "${seconds%.*}"
}
sleep "$1"
end=$(($(now) + $2))
silent=0
while [ "$(now)" -lt "$end" ] && [ "$silent" -lt 3 ]; do
  # local address, remote address, state: established connections (01) to port 19000 (4A38).
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':4A38 [0-9A-F]*:[0-9A-F]* 01 ' || exit 0
  if sh /etc/codis/proxy-ready.sh; then silent=0; else silent=$((silent + 1)); fi
  sleep 1
done
