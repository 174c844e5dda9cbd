"""The token of a server that others can reach: who is answered, and in whose forms it comes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from starlette.testclient import TestClient

from picosam2.apps.http.app import create_app
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.token import token_of
from picosam2.errors import ConfigError
from picosam2.io.sample_image import sample_bytes
from picosam2.predictor import Predictor

TOKEN = "correct:horse-battery"


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture(scope="module")
def client(tiny_onnx: Path) -> Iterator[TestClient]:
    app = create_app(Predictor(tiny_onnx, threads=1), Limits(), token=TOKEN)
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        basic("", TOKEN),
        basic("label-studio", TOKEN),
        {"token": TOKEN},
    ],
)
def test_who_has_the_token_is_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/v1/models", headers=headers).status_code == 200
    headers = {**headers, "content-type": "image/jpeg"}
    answer = client.post("/v1/segment?point=353,349", content=sample_bytes(), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"token": ""},
        {"token": TOKEN[:-1]},
        {"token": TOKEN + "x"},
        {"authorization": TOKEN},
        {"authorization": f"Digest {TOKEN}"},
        {"authorization": "Bearer"},
        {"authorization": "Basic ?"},
        basic(TOKEN, ""),
        basic("user", TOKEN.upper()),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/segment"),
        ("POST", "/v1/everything"),
        ("POST", "/v1/sessions"),
        ("POST", "/v1/sessions/x/segment"),
        ("DELETE", "/v1/sessions/x"),
        ("POST", "/setup"),
        ("POST", "/predict"),
        ("GET", "/v1/models"),
        ("POST", "/v1/predict"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/health/"),
    ],
)
def test_nobody_else_is(
    client: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert "wants its token" in answer.json()["error"]
    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_but_health_wants_it(client: TestClient) -> None:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute

    app = client.app
    assert isinstance(app, FastAPI)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 10
    for route in routes:
        for method in route.methods:
            status = client.request(method, route.path).status_code
            assert (status == 401) == (route.path != "/health"), (method, route.path)


def test_health_is_open_and_the_host_is_checked_first(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 421


def test_no_token_is_wanted_where_none_is_set(tiny_onnx: Path) -> None:
    app = create_app(Predictor(tiny_onnx, threads=1), Limits())
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        assert client.get("/v1/models").status_code == 200


def test_the_environment() -> None:
    assert token_of({}) is None
    assert token_of({"PICOSAM2_TOKEN": ""}) is None
    assert token_of({"PICOSAM2_TOKEN": TOKEN}) == TOKEN
    for wrong in ("short", "with a space in it", "\n" * 20, "ä" * 20, "x" * 2000):
        with pytest.raises(ConfigError, match="16 or more letters"):
            token_of({"PICOSAM2_TOKEN": wrong})
