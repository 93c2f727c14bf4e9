# The stand-in for Codis's images: Debian's redis under the name codis-server, our double under the other names, at the
# paths that images for the predecessor have. Build context: the directory that `make images` puts together.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# A Debian mirror, for a base image that has none of its own; empty: as the base has it.
ARG MIRROR=
ARG SUITE=bookworm
ENV CODIS_PATH=/gopath/src/github.com/CodisLabs/codis
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# policy-rc.d: nothing that is installed here may start a service.
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; \
    if [ -n "$MIRROR" ]; then rm -rf /etc/apt/sources.list.d/*; echo "deb $MIRROR $SUITE main" >/etc/apt/sources.list; fi; \
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    apt-get update -qq; \
    apt-get install -y -qq --no-install-recommends redis-server redis-sentinel redis-tools >/dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /usr/sbin/policy-rc.d /etc/redis /var/lib/redis; \
    ln -s "$(command -v redis-server)" /usr/local/bin/codis-server

# What changes often comes last.
COPY config $CODIS_PATH/config
COPY assets $CODIS_PATH/bin/assets
COPY codis-double /usr/local/bin/codis-double
RUN set -eu; \
    for name in codis-dashboard codis-proxy codis-fe codis-admin; do ln -s codis-double "/usr/local/bin/$name"; done; \
    for name in codis-dashboard codis-proxy codis-fe codis-admin codis-server redis-cli redis-sentinel; do \
      ln -s "$(command -v "$name")" "$CODIS_PATH/bin/$name"; \
    done; \
    ln -s "$CODIS_PATH/bin/assets" /usr/local/bin/assets; \
    mkdir -p /codis /data; chmod 0777 /codis /data
WORKDIR /codis
