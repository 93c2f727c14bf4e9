# The operator's image. It copies the program that cargo built (make images), so the base must be at least as new as
# the machine it was built on.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY codis-operator /usr/local/bin/codis-operator
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/local/bin/codis-operator"]
CMD ["run"]
