# What server and router have in common: a C library, Torpor's programs, a user.
ARG BASE=debian:bookworm-slim
ARG BINARIES=torpor/binaries
FROM ${BINARIES} AS binaries
FROM ${BASE}
COPY --from=binaries /opt/torpor /opt/torpor
ENV PATH=/opt/torpor/bin:$PATH TORPOR_SERVER=/run/torpor
RUN groupadd --gid 10001 torpor && useradd --uid 10001 --gid 10001 --no-create-home torpor \
 && install -d -o torpor -g torpor -m 0700 /run/torpor
USER torpor
STOPSIGNAL SIGTERM
