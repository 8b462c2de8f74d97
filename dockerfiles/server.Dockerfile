# The node server: the one container that has the node's GPUs.
#   docker run --gpus all -v /run/torpor:/run/torpor torpor/server
# Logs go to standard error; the exit status is that of `torpor serve`. With `--keeper true`, the default, the first
# process is the server's keeper: programs go on when the server is killed, or replaced by `torpor stop --keep`. Other arguments take its place.
ARG BASE=torpor/base
FROM ${BASE}
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s CMD ["torpor", "gpus"]
ENTRYPOINT ["torpor", "serve", "--directory", "/run/torpor"]
CMD ["--keeper", "true"]
