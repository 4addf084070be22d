# docker build --target gateway|gateway-gpu|training|engine --build-arg VERSION=... --build-arg REVISION=$(git rev-parse HEAD) .
#
# Images are pinned by version. To pin the very bytes: --build-arg PYTHON_IMAGE=python:...@sha256:... (ENGINE_IMAGE too).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG ENGINE_IMAGE=vllm/vllm-openai:v0.32.0

# The source, and an empty environment without pip in /app, which is all that the images take from here.
FROM ${PYTHON_IMAGE} AS source
WORKDIR /src
COPY LICENSE README.md pyproject.toml requirements.lock requirements-gpu.lock ./
COPY models models
COPY training training
COPY service service
COPY clients clients
# A constraint that pip reads from the environment holds for the build of our own wheel too.
ENV PIP_CONSTRAINT=/src/requirements.lock PIP_CACHE_DIR=/pip-cache PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /app

FROM source AS gateway-build
RUN --mount=type=cache,target=/pip-cache python -m pip --python /app install '.[service]'

FROM source AS gateway-gpu-build
ENV PIP_CONSTRAINT=/src/requirements-gpu.lock
RUN --mount=type=cache,target=/pip-cache python -m pip --python /app install '.[service-gpu]'

FROM source AS training-build
ENV PIP_CONSTRAINT=/src/requirements-gpu.lock
RUN --mount=type=cache,target=/pip-cache python -m pip --python /app install '.[training,tracking,vllm]'

# What all images of ours have in common.
FROM ${PYTHON_IMAGE} AS program
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Preference Orchestrator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
# ONNX Runtime and vLLM report what they do to their makers unless they are told not to.
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1
WORKDIR /data
USER 10001:10001
STOPSIGNAL SIGTERM

# Writes nothing: the root file system may be read-only, and no folder has to be writable.
FROM program AS gateway-base
EXPOSE 8000 8001
# Ready, not just alive: Docker and Compose wait for it and restart nothing because of it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["preforch", "serve"]

FROM gateway-base AS gateway-gpu
COPY --from=gateway-gpu-build /app /app

# Writes below /data, where runs are mounted, and /tmp. vLLM compiles kernels as it starts, with the C compiler.
FROM program AS training
USER 0:0
# Not pinned, because Debian's mirrors drop a version as soon as there is a newer one.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=training-build /app /app
ENV HOME=/tmp
ENTRYPOINT ["preforch", "train"]

# vLLM's official image, as it is. What it is started with: docker-compose.yaml.
FROM ${ENGINE_IMAGE} AS engine

# Last, so that it is built where no target is named.
FROM gateway-base AS gateway
COPY --from=gateway-build /app /app
