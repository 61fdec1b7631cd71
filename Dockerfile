# syntax=docker/dockerfile:1
# CPU:   docker build -t mammo .
# CUDA:  docker build -t mammo --build-arg BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04 --build-arg TORCH=cu130 .
# Run:   docker run --read-only --tmpfs /tmp -v mammo:/work mammo         (every chapter, from the committed records)
#        docker run --read-only --tmpfs /tmp -v mammo:/work -v /films:/data:ro mammo mammo reproduce --data /data
# The root file system may be read-only, and the user is not root: everything that is written, including the compiled
# scan, goes to the volume /work. The first start copies the project there.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG TORCH=cpu
ENV UV_TORCH_BACKEND=${TORCH} UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_INSTALL_DIR=/opt/python \
    VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
WORKDIR /opt/mammo
COPY . .
RUN uv venv --python 3.11 /opt/venv \
 && uv pip install --constraint constraints.txt --editable '.[book,dev]' \
 && useradd --create-home --home-dir /work --uid 1000 mammo
ENV HOME=/work MAMMO_ROOT=/work/mammo NUMBA_CACHE_DIR=/work/.cache/numba XDG_CACHE_HOME=/work/.cache \
    MPLCONFIGDIR=/work/.cache/matplotlib IPYTHONDIR=/work/.cache/ipython PYTHONDONTWRITEBYTECODE=1
USER 1000
VOLUME /work
WORKDIR /work
ENTRYPOINT ["/opt/mammo/.ci/enter"]
CMD ["mammo", "reproduce"]
