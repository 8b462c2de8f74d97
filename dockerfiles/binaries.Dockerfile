# Torpor's programs and library, built from source: what the other images copy from. `scripts/images` makes the same image from
# a release build on this machine instead.
ARG RUST=rust:1.95-bookworm
FROM ${RUST} AS build
WORKDIR /torpor
COPY . .
RUN cargo build --release --locked && mkdir -p /opt/torpor/bin /opt/torpor/lib/names \
 && cd target/release \
 && for program in torpor torpor-gpuserver torpor-kube torpor-router; do strip -o /opt/torpor/bin/$program $program; done \
 && for library in libtorpor_intercept.so libtorpor_simgpu.so; do strip -o /opt/torpor/bin/$library $library; done \
 && ln -s ../bin/libtorpor_intercept.so /opt/torpor/lib/libtorpor_intercept.so \
 && ln -s ../libtorpor_intercept.so /opt/torpor/lib/names/libcuda.so \
 && ln -s ../libtorpor_intercept.so /opt/torpor/lib/names/libcuda.so.1 \
 && ln -s ../libtorpor_intercept.so /opt/torpor/lib/names/libnvidia-ml.so.1

FROM scratch
COPY --from=build /opt/torpor /opt/torpor
