# syntax=docker/dockerfile:1
# Two images of one server:
#   docker build --target cpu  -t voice-serve:0.1.0-cpu  .
#   docker build --target cuda -t voice-serve:0.1.0-cuda .
# Every package has the version in constraints.txt. For reproducible images name the base by its digest:
#   --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
# What some settings need besides, buckets, aac and traces:
#   --build-arg EXTRAS="s3fs av opentelemetry-exporter-otlp-proto-http"

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /build
# Packages before the code, so that a change of code builds in seconds.
COPY pyproject.toml constraints.txt README.md LICENSE ./

# The two differ in where torch comes from: its own index has a wheel for CPUs, a tenth of the size of that with CUDA.
# The empty packages stand for the code; nothing of them may stay, or setuptools takes a newer empty file for the real one.
FROM tools AS packages-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=""
RUN pip install --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
    && mkdir voice_core deployments && touch voice_core/__init__.py deployments/__init__.py \
    && pip install --constraint constraints.txt . $EXTRAS && pip uninstall --yes voice-serve \
    && rm -rf build voice_serve.egg-info voice_core deployments

# PyPI's wheel brings CUDA with it, but not the driver: that comes from the host. An older driver may need another index,
# such as https://download.pytorch.org/whl/cu126.
FROM tools AS packages-cuda
ARG TORCH_INDEX=https://pypi.org/simple
ARG EXTRAS=""
RUN pip install --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
    && mkdir voice_core deployments && touch voice_core/__init__.py deployments/__init__.py \
    && pip install --constraint constraints.txt . $EXTRAS && pip uninstall --yes voice-serve \
    && rm -rf build voice_serve.egg-info voice_core deployments

FROM packages-cpu AS built-cpu
COPY voice_core voice_core
COPY deployments deployments
RUN pip install --no-deps .

FROM packages-cuda AS built-cuda
COPY voice_core voice_core
COPY deployments deployments
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE} AS runtime
# Ray writes its session to /tmp and its token to the home, so the user has one. libsndfile comes with soundfile's wheel.
RUN groupadd --gid 1000 voice && useradd --uid 1000 --gid voice --create-home voice \
    && install --directory --owner voice --group voice /data /data/voices /data/models
# The proxy's limit on bodies also holds where Ray is started by somebody else, as KubeRay does.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/models \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.proxy:middlewares
USER 1000:1000
WORKDIR /home/voice
VOLUME /data
EXPOSE 8000 8080
# Ready (or full: 429), not only alive; the first start may have to fetch a model.
HEALTHCHECK --interval=10s --timeout=6s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import http.client as http; server = http.HTTPConnection('127.0.0.1', 8000, timeout=5); \
         server.request('GET', '/readyz'); raise SystemExit(server.getresponse().status not in (200, 429))"]
# 0.0.0.0 is the container's own network, and only there: who publishes the port decides who can reach it. Without TLS and
# without a limit on rates, so put a reverse proxy in front. Needs --shm-size=512m (Ray's store) and --init (its children).
CMD ["python", "-m", "deployments", "--host", "0.0.0.0", "--port", "8000", "--metrics-port", "8080", \
     "--voices", "/data/voices"]

FROM runtime AS cuda
# Triton, which comes with torch, compiles the decoder's kernels at the first start, and a stub in C to start each of them.
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 1000:1000
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TRITON_CACHE_DIR=/data/triton
COPY --from=built-cuda /opt/venv /opt/venv

# The last stage is what a build without --target gives.
FROM runtime AS cpu
COPY --from=built-cpu /opt/venv /opt/venv
