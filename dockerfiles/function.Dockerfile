# A function for trying the others: the client image and one program.
ARG BASE=torpor/client
FROM ${BASE}
COPY function.py /opt/function.py
ENV PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=5s --start-period=30s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["python3", "/opt/function.py"]
