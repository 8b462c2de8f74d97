# Pods as functions: beside the node server on every node of a cluster (deploy/kubernetes, docs/kubernetes.md). Logs go to standard error.
#   docker run torpor/kube --help
ARG BASE=torpor/base
FROM ${BASE}
ENTRYPOINT ["torpor-kube"]
