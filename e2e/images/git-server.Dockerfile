# A Git server for the end-to-end suite: git's own http backend behind our test server. Build context: the directory that
# `make images` puts together.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# A Debian mirror, for a base image that has none of its own; empty: as the base has it.
ARG MIRROR=
ARG SUITE=bookworm
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; \
    if [ -n "$MIRROR" ]; then rm -rf /etc/apt/sources.list.d/*; echo "deb $MIRROR $SUITE main" >/etc/apt/sources.list; fi; \
    apt-get update -qq; \
    apt-get install -y -qq --no-install-recommends git >/dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
COPY codis-git-server /usr/local/bin/codis-git-server
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/codis-git-server"]
