# picosam2 on a CPU: the command line, and by default the server. The model is inside.
#   docker build --tag picosam2 .
#   docker run --rm --read-only --publish 127.0.0.1:8428:8428 picosam2
#   docker run --rm --read-only --volume "$PWD:/data" --workdir /data picosam2 segment a.jpg --point 120,80
FROM python:3.13-slim AS build
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/picosam2 \
    && /opt/picosam2/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]' \
    && /opt/picosam2/bin/pip uninstall --yes pip \
    && /opt/picosam2/bin/python -m compileall -q /opt/picosam2

FROM python:3.13-slim
COPY --from=build /opt/picosam2 /opt/picosam2
RUN useradd --system --uid 10001 --no-create-home picosam2
ENV PATH=/opt/picosam2/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8428
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8428/health')"]
ENTRYPOINT ["picosam2"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8428"]
