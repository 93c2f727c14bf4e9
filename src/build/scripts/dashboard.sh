#!/bin/sh
# Starts the dashboard. Its lock outlives a kill (contract §10) and is broken only where it is provably our own: on its
# own volume always, because a StatefulSet of one has at most one pod; elsewhere if it names our own address, which no
# other cluster has, here or in another Kubernetes.
set -eu
secret=/etc/codis
address=$(cat "$secret/lock-address")
unlock=''
if [ "$COORDINATOR" = filesystem ]; then
  unlock=--remove-lock
else
  holders=$(codis-admin --dashboard-list "--$COORDINATOR=$COORDINATOR_ADDR" | tr -d ' \n\t')
  case $holders in
  *"{\"name\":\"$PRODUCT_NAME\",\"dashboard\":\"$address\"}"*) unlock=--remove-lock ;;
  *"{\"name\":\"$PRODUCT_NAME\",\"dashboard\":"*)
    echo "codis-dashboard: the product $PRODUCT_NAME is held by another dashboard: $holders" | tee /dev/termination-log >&2
    exit 1
    ;;
  esac
fi
exec codis-dashboard "--ncpu=$NCPU" -c "$secret/dashboard.toml" "--host-admin=$address" $unlock
