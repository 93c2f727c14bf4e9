# etcd for the suites: Debian's 3.4, the last in Debian that still serves the v2 keys API, which is all that Codis speaks.
# Only the program is taken over.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS packages
# A Debian mirror, for a base image that has none of its own; empty: as the base has it.
ARG MIRROR=
ARG SUITE=bookworm
RUN set -eu; \
    if [ -n "$MIRROR" ]; then rm -rf /etc/apt/sources.list.d/*; echo "deb $MIRROR $SUITE main" >/etc/apt/sources.list; fi; \
    apt-get update -qq; \
    cd /tmp; apt-get download -qq etcd-server; \
    for package in ./*.deb; do dpkg -x "$package" /root/unpacked; done

FROM ${BASE}
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=packages /root/unpacked/usr/bin/etcd /usr/local/bin/etcd
RUN mkdir /data && chmod 0777 /data
USER 65532:65532
EXPOSE 2379
CMD ["etcd", "--enable-v2", "--data-dir=/data/etcd", "--log-level=warn", \
     "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://127.0.0.1:2379", \
     "--listen-peer-urls=http://127.0.0.1:2380"]
