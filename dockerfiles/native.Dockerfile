# The same program with a GPU of its own, for comparison: PyTorch's image and the endpoint.
#   docker run --gpus all -p 8000:8000 torpor/native
ARG BASE=pytorch/pytorch:2.11.0-cuda13.0-cudnn9-runtime
FROM ${BASE}
COPY function.py /opt/function.py
ENV PORT=8000
EXPOSE 8000
CMD ["python3", "/opt/function.py"]
