#!/bin/sh
# Starts the web front end. It is told where its assets are: started by bare name it looks in the working directory.
set -eu
exec codis-fe "--ncpu=$NCPU" --dashboard-list=/etc/codis/dashboards.json "--assets-dir=$CODIS_PATH/bin/assets" \
  --listen=0.0.0.0:9090
