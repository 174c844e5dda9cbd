"""`picosam2 serve`: masks over HTTP, for programs on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Weights

PORT = 8428


def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = PORT,
    allow_host: Annotated[list[str] | None, Parameter(negative=(), metavar="NAME")] = None,
    images: Annotated[Path | None, Parameter(metavar="FOLDER")] = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 2,
    max_body_mb: Annotated[float, Parameter(validator=Number(gt=0, lte=10_000))] = 20,
    max_megapixels: Annotated[float, Parameter(validator=Number(gt=0, lte=10_000))] = 25,
    max_prompts: Annotated[int, Parameter(validator=Number(gte=1))] = 64,
    max_sessions: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=86_400))] = 30,
    weights: Weights = "default",
    runtime: RuntimeName = "onnx",
    threads: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
) -> int:
    """Answer HTTP requests with masks, until Ctrl C.

    `curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg'
    'http://127.0.0.1:8428/v1/segment?point=120,80'` gives JSON; `&format=overlay` gives an image.
    /openapi.json describes everything, also sessions, which keep an image for many clicks;
    /metrics has counts for Prometheus. Label Studio and X-AnyLabeling can use it as their model.
    The server opens no address for a client, and no path but those in --images.

    Args:
        host: The address to listen on. Only this machine reaches 127.0.0.1. With another, set the
            environment variable PICOSAM2_TOKEN: then only clients that send it are answered.
        port: The port; 0 takes any.
        allow_host: A further name by which clients may call this server. Repeatable.
        images: The folder in which Label Studio's tasks name their images. Files in it, and no
            others, are read for clients.
        workers: Requests that use the network at once.
        max_body_mb: Largest request, in MB.
        max_megapixels: Largest image, in millions of pixels.
        max_prompts: Most objects in one request.
        max_sessions: Most images kept; the one used longest ago goes first.
        seconds: Longest time for one request.
        threads: CPU threads of the network for each request.
    """
    from picosam2.errors import ConfigError, require

    if images is not None and not images.is_dir():
        raise ConfigError(f"{images} is no folder: --images names one that holds images")
    for module in ("fastapi", "uvicorn", "prometheus_client", "cachetools", "python_multipart"):
        require(module, "serve")
    import uvicorn

    from picosam2.apps.hosts import LOCAL_NAMES, served_names, url_host
    from picosam2.apps.http.app import create_app
    from picosam2.apps.http.connections import guarded_protocol
    from picosam2.apps.http.limits import Limits
    from picosam2.apps.http.memory import give_memory_back
    from picosam2.apps.http.token import VARIABLE, token_of
    from picosam2.apps.listener import listen
    from picosam2.predictor import Predictor

    body = round(max_body_mb * 1e6)
    limits = Limits(
        body=body,
        bodies=max(Limits.bodies, 2 * body),
        pixels=round(max_megapixels * 1e6),
        prompts=max_prompts,
        sessions=max_sessions,
        seconds=seconds,
    )
    token = token_of(os.environ)
    give_memory_back()
    with listen(host, port) as listener:
        name = url_host(host)
        predictor = Predictor(weights, runtime=runtime, threads=threads)
        app = create_app(
            predictor,
            limits,
            workers=workers,
            threads=threads,
            hosts=served_names(host, allow_host or ()),
            images=images,
            token=token,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=max(round(seconds), 1),
            http=guarded_protocol(limits),
            lifespan="on",
        )
        if name not in LOCAL_NAMES:
            print(
                "picosam2: WARNING: other machines may reach this server, and whoever reaches it "
                f"may use it: set {VARIABLE} to a secret that clients must send"
                if token is None
                else "picosam2: other machines may reach this server; they must send the token",
                file=sys.stderr,
            )
        listener.listen(128)  # so that who reads the next line can call at once
        print(f"http://{name}:{listener.getsockname()[1]}\nCtrl C stops it.", flush=True)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has finished what was under way
            print()
    return 0
