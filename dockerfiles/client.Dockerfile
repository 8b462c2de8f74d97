# Any image whose programs use CUDA, with Torpor's library in front: one layer and one line more than the image itself. Nothing of
# NVIDIA's driver and no device is needed; the function's directory is mounted at /run/torpor (README.md beside this file).
ARG BASE=python:3.12-slim
ARG BINARIES=torpor/binaries
FROM ${BINARIES} AS binaries
FROM ${BASE}
COPY --from=binaries /opt/torpor /opt/torpor
ENV LD_PRELOAD=/opt/torpor/lib/libtorpor_intercept.so LD_LIBRARY_PATH=/opt/torpor/lib/names TORPOR_SERVER=/run/torpor
