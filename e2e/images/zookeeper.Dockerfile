# zookeeper for the suites: Debian's 3.8 on a Java runtime that has only the modules it needs: a fifth of the whole one.
# Build context: e2e/images/zookeeper.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS packages
# A Debian mirror, for a base image that has none of its own; empty: as the base has it.
ARG MIRROR=
ARG SUITE=bookworm
# Unpacked, not installed: no script of theirs runs, and nothing comes along that a graphical Java would need.
RUN set -eu; \
    if [ -n "$MIRROR" ]; then rm -rf /etc/apt/sources.list.d/*; echo "deb $MIRROR $SUITE main" >/etc/apt/sources.list; fi; \
    apt-get update -qq; \
    cd /tmp; apt-get download -qq openjdk-17-jre-headless openjdk-17-jdk-headless \
      libzookeeper-java libslf4j-java libnetty-java libdropwizard-metrics-java libsnappy-java libcommons-io-java; \
    for package in ./*.deb; do dpkg -x "$package" /root/unpacked; rm "$package"; done; \
    cp -r /root/unpacked/etc/java-17-openjdk /etc/; \
    java=$(echo /root/unpacked/usr/lib/jvm/java-17-openjdk-*); \
    "$java/bin/jlink" --module-path "$java/jmods" --output /root/java --strip-java-debug-attributes --no-header-files --no-man-pages \
      --add-modules java.base,java.logging,java.management,java.naming,java.security.jgss,java.security.sasl,java.xml,jdk.unsupported; \
    mkdir -p /root/jars; \
    for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple metrics-core snappy-java commons-io \
      netty-buffer netty-common netty-handler netty-transport; do \
      cp -L "/root/unpacked/usr/share/java/$jar.jar" /root/jars/; \
    done

FROM ${BASE}
ENV PATH=/opt/java/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=packages /root/java /opt/java
COPY --from=packages /root/jars /opt/zookeeper
RUN mkdir /data && chmod 0777 /data
COPY zoo.cfg /etc/zookeeper/zoo.cfg
USER 65532:65532
EXPOSE 2181
CMD ["java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", \
     "-cp", "/opt/zookeeper/*", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "/etc/zookeeper/zoo.cfg"]
