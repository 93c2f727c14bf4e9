#!/bin/sh
# Starts the dashboard, where the product is ours. Its lock outlives a kill (contract §10) and is broken only where it is
# provably our own: on its own volume always, because a StatefulSet of one has at most one pod; elsewhere if it names our
# own address, which no other cluster has, here or in another Kubernetes. A product that has content and no mark of ours
# isn't written, not even by a lock.
set -eu
secret=/etc/codis
data=/data
address=$(cat "$secret/lock-address")

# The last word of a container that doesn't start: the operator reads it there.
refuse() {
  echo "$1" | tee /dev/termination-log >&2
  exit 1
}

# What the coordinator says, without white space. Who can't read it doesn't know whose the product is.
ask() {
  answer=$(codis-admin "--$COORDINATOR=$COORDINATOR_ADDR" "$@") ||
    refuse "the $COORDINATOR $COORDINATOR_ADDR can't be read (codis-admin $1), so nobody knows whose the product $PRODUCT_NAME is"
  answer=$(printf '%s' "$answer" | tr -d ' \n\r\t')
  case $answer in
  '['*']' | '{'*'}' | null) printf '%s' "$answer" ;;
  *) refuse "codis-admin $1 of the $COORDINATOR $COORDINATOR_ADDR isn't understood" ;;
  esac
}

# By the mark. A container that starts again in its pod reads the Secret as it was a minute ago, perhaps from before the
# mark: but what it began with was ours, and nobody had the lock since.
is_known_as_ours() {
  [ -s "$secret/product-claimed" ] || { [ -n "$unlock" ] && [ -e "$data/product-ours" ]; }
}

# Ends where the product has content: nothing says that it is ours.
look_into_it() {
  # For codis-admin a product with neither groups nor proxies doesn't exist: it says so, and fails.
  case $(codis-admin "--$COORDINATOR=$COORDINATOR_ADDR" --config-dump "--product=$PRODUCT_NAME" 2>&1 >/dev/null || true) in
  *"cann't find product = $PRODUCT_NAME "*) return ;;
  esac
  content=$(ask --config-dump "--product=$PRODUCT_NAME")
  found=''
  case $content in *'"group":[{'*) found="$found, groups" ;; esac
  case $content in *'"proxy":[{'*) found="$found, proxies" ;; esac
  case $content in *'"group_id":'[1-9]*) found="$found, assigned slots" ;; esac
  server=''
  case $content in *'"server":"'*) server=${content#*'"server":"'} && server=", like the server ${server%%\"*}" ;; esac
  [ -z "$found" ] ||
    refuse "$elsewhere has ${found#, }$server, and isn't marked as this cluster's. $ways_out; or, if that content is of no use any more, remove /codis3/$PRODUCT_NAME from the coordinator, or its groups and proxies with codis-admin; or have it adopted"
}

elsewhere="ProductOwnedElsewhere: the product $PRODUCT_NAME on the $COORDINATOR $COORDINATOR_ADDR"
ways_out="Nothing was written. Make this cluster anew with another spec.productName or coordinator"
unlock=''
if [ "$COORDINATOR" = filesystem ]; then
  unlock=--remove-lock
else
  holders=$(ask --dashboard-list)
  # One dashboard a line, whatever the order of its fields.
  holder=$(printf '%s' "$holders" | tr '{' '\n' |
    sed -n "/\"name\":\"$PRODUCT_NAME\"/s/.*\"dashboard\":\"\([^\"]*\)\".*/\1/p")
  case $holder in
  '') ;;
  "$address") unlock=--remove-lock ;;
  *)
    refuse "$elsewhere is held by the dashboard $holder. $ways_out; or end that dashboard, and if it is gone for good, remove its lock with codis-admin --remove-lock"
    ;;
  esac

  if ! is_known_as_ours; then look_into_it; fi
  : >"$data/product-ours"
fi
exec codis-dashboard "--ncpu=$NCPU" -c "$secret/dashboard.toml" "--host-admin=$address" $unlock
