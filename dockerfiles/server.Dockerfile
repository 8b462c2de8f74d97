# The node server: the one container that has the node's GPUs.
#   docker run --gpus all -v /run/torpor:/run/torpor torpor/server
# Logs go to standard error; the exit status is that of `torpor serve`.
ARG BASE=torpor/base
FROM ${BASE}
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s CMD ["torpor", "gpus"]
ENTRYPOINT ["torpor", "serve", "--directory", "/run/torpor"]
