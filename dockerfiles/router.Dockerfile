# The serving front.
#   docker run -p 8080:8080 -v /run/torpor:/run/torpor -v ./torpor.toml:/etc/torpor.toml:ro torpor/router
ARG BASE=torpor/base
FROM ${BASE}
EXPOSE 8080
# Debian's slim images have bash, and neither curl nor wget.
HEALTHCHECK --interval=2s --timeout=5s --start-period=10s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3"]
ENTRYPOINT ["torpor-router", "--directory", "/run/torpor", "--config", "/etc/torpor.toml", "--listen", "0.0.0.0:8080"]
