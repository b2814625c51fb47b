# syntax=docker/dockerfile:1
# Stage 1 builds a virtual environment from the lock file; stage 2 is that, a user of its own, and nothing to compile with.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv /opt/aiproject
ENV PATH=/opt/aiproject/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The lock file first: this layer is kept while only the program changes.
COPY requirements/run.txt requirements/run.txt
RUN pip install --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin aiproject \
 && install -d -o aiproject -g aiproject -m 0700 /data
COPY --from=build /opt/aiproject /opt/aiproject
ENV PATH=/opt/aiproject/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIPROJECT_HOST=0.0.0.0 \
    AIPROJECT_PORT=8080 \
    AIPROJECT_DATA_DIR=/data
USER aiproject
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['AIPROJECT_PORT']}/health\", timeout=4)"]
ENTRYPOINT ["aiproject"]
CMD ["serve"]
