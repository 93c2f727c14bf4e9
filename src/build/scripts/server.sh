#!/bin/sh
# Starts a codis-server. Written for POSIX sh; every file under /etc/codis comes from the cluster's Secret.
#
# At every start the configuration is made anew, so that passwords, sizes and a forgotten fence don't go stale. One
# thing is taken over from the old one: its replication line, if it names a member of the same group, by an address that
# it has or had.
#
# The gate: in a group that holds data (its id is in `bootstrapped`) a server without data never starts as a master,
# because its replicas would copy its emptiness. It starts as a replica of whoever is master, or stops and is started
# again until somebody is.
set -eu
secret=/etc/codis
data=/data
own='' group=''
while read -r member address id; do
  if [ "$member" = "$POD_NAME" ]; then own=$address group=$id; fi
done <"$secret/members"
if [ -z "$own" ]; then
  echo "codis-server: $POD_NAME is no member of the cluster" >&2
  exit 1
fi
password=$(cat "$secret/product-auth")

others() {
  while read -r member address id; do
    if [ "$id" = "$group" ] && [ "$address" != "$own" ]; then echo "$address"; fi
  done <"$secret/members"
}

# The address that a server has now: its Service may have been made anew with another one.
present() {
  while read -r former now _; do
    if [ "$former" = "$1" ]; then echo "$now"; return; fi
  done <"$secret/former-addresses"
  echo "$1"
}

# The old role. Redis writes `slaveof`, from version 5 on `replicaof`; both read the former.
role=''
if [ -f "$data/redis.conf" ]; then
  while read -r key host port _; do
    case $key in
    slaveof | replicaof)
      host=$(present "$host")
      for other in $(others); do
        if [ "$other" = "$host" ]; then role="slaveof $host $port"; fi
      done
      ;;
    esac
  done <"$data/redis.conf"
fi

# No append-only file of redis 3.2 nor of 7, and no dump: this server has never held anything on this volume.
is_empty() {
  [ ! -e "$data/appendonly.aof" ] && [ ! -d "$data/appendonlydir" ] && [ ! -e "$data/dump.rdb" ]
}

is_bootstrapped() {
  while read -r id; do
    if [ "$id" = "$group" ]; then return 0; fi
  done <"$secret/bootstrapped"
  return 1
}

# The password goes through standard input: arguments are for everybody to see.
is_master() {
  { if [ -n "$password" ]; then echo "AUTH $password"; fi; echo 'INFO replication'; } |
    timeout 2 redis-cli -h "$1" -p 6379 2>/dev/null | tr -d '\r' | grep -qx 'role:master'
}

if [ -z "$role" ] && is_empty && is_bootstrapped; then
  # Somewhat longer than sentinels take to promote another server.
  for _ in 1 2 3 4 5 6 7 8; do
    for other in $(others); do
      if is_master "$other"; then role="slaveof $other 6379"; break 2; fi
    done
    sleep 1
  done
  if [ -z "$role" ]; then
    # The operator reads this message: it is the proof that this copy is gone.
    echo 'codis-gate: no data here and no master in the group' | tee /dev/termination-log >&2
    exit 1
  fi
  echo "codis-gate: no data here: starting as a replica ($role)" >&2
fi

# The fence: a master that comes back may be about to be replaced by sentinels that haven't noticed its return. Until
# the operator knows better it takes no write that it can't hand to a replica, so that none is lost then.
fence=''
if [ -z "$role" ] && is_bootstrapped && [ -n "$(others)" ]; then fence=1; fi

{
  cat "$secret/redis.conf"
  if [ -n "$fence" ]; then
    echo 'min-slaves-to-write 1'
    echo 'min-slaves-max-lag 5'
  fi
  echo "slave-announce-ip $own"
  echo 'slave-announce-port 6379'
  if [ -n "$role" ]; then echo "$role"; fi
} >"$data/redis.conf.new"
mv "$data/redis.conf.new" "$data/redis.conf"
exec codis-server "$data/redis.conf"
