# The operator's image. It copies the program that cargo built (make images), so the base must be at least as new as
# the machine it was built on.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# A Debian mirror, for a base image that has none of its own; empty: as the base has it.
ARG MIRROR=
ARG SUITE=bookworm
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The public CAs, for Git servers with https://.
RUN set -eu; if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then \
      if [ -n "$MIRROR" ]; then rm -rf /etc/apt/sources.list.d/*; echo "deb $MIRROR $SUITE main" >/etc/apt/sources.list; fi; \
      apt-get update -qq; \
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates >/dev/null; \
      rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb; \
    fi
COPY codis-operator /usr/local/bin/codis-operator
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/local/bin/codis-operator"]
CMD ["run"]
