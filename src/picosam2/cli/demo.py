"""`picosam2 demo`: the page that runs the model in the browser, served on this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Weights


def demo(
    *,
    weights: Weights = "default",
    port: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))] = None,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
) -> None:
    """Open a page where you point at things and get their masks.

    The model runs inside the browser: images stay there. The page is served on 127.0.0.1 only,
    until Ctrl C; once it was open it also works without this command.

    Args:
        weights: Shipped weights by name, or an ONNX file.
        port: The port to serve on; 0 takes any. By default 8427, or any if that is taken.
        browser: Open the browser, or only print the address.
    """
    import webbrowser

    from picosam2.apps.demo import DemoServer, find_site

    with DemoServer(find_site(weights), port) as server:
        print(f"{server.url}\nCtrl C stops it.", flush=True)
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
