"""The protocol of X-AnyLabeling-Server: its client sends an image and marks, and gets shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from picosam2.apps.http.bodies import Bytes, content_kind, parse
from picosam2.apps.http.errors import RequestError
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.schemas import ImageBytes, check_count
from picosam2.apps.http.service import Service
from picosam2.errors import PromptError
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation

MODEL = "picosam2"
"""The one model's id."""

LABEL = "AUTOLABEL_OBJECT"
"""What the client replaces by the label that the user chooses."""

_WIDGETS = (
    "button_add_point", "button_remove_point", "button_add_rect", "button_clear",
    "button_finish_object", "mask_fineness_slider", "mask_fineness_value_label",
    "toggle_preserve_existing_annotations",
)  # fmt: skip
_INFO = {
    "model_id": MODEL,
    "display_name": "PicoSAM2",
    "batch_processing_mode": None,  # it needs a mark in each image
    "params": {"epsilon_factor": 0.001},
    "widgets": [{"name": name, "value": None} for name in _WIDGETS],
}


class Mark(BaseModel):
    """A click or a rectangle, in pixels."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    type: Literal["point", "rectangle"]
    data: list[float] = Field(min_length=2, max_length=4)
    label: Literal[0, 1] = 1


class Params(BaseModel):
    """What the client sends beside the image; the thresholds of detectors mean nothing here."""

    model_config = ConfigDict(extra="ignore")

    marks: list[Mark] = []
    text_prompt: str = ""
    epsilon_factor: Annotated[float, Field(ge=0, le=0.1)] = 0.001


class PredictBody(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="ignore")

    model: str
    image: ImageBytes
    params: Params = Params()


def add_routes(app: FastAPI, service: Service, limits: Limits) -> None:
    """Answer X-AnyLabeling's requests, within the limits of all others."""

    @app.get("/v1/models")
    async def models() -> Response:
        """The models, in X-AnyLabeling-Server's form."""
        return JSONResponse({"success": True, "data": {MODEL: _INFO}})

    @app.get("/v1/models/{model}/info")
    async def info(model: str) -> Response:
        """One model, in X-AnyLabeling-Server's form."""
        _check_model(model)
        return JSONResponse({"success": True, "data": _INFO})

    @app.post("/v1/predict")
    async def predict(request: Request) -> Response:
        """Shapes for the marks on an image, in X-AnyLabeling-Server's form."""

        def read(body: Bytes) -> tuple[Bytes, list[Prompt], float]:
            if content_kind(request) != "application/json":
                raise RequestError(415, "send a JSON object as application/json")
            body_read = parse(PredictBody, body, limits)
            _check_model(body_read.model)
            return (
                body_read.image,
                prompts_of(body_read.params, limits),
                body_read.params.epsilon_factor,
            )

        def shapes(results: list[Segmentation], epsilon: float) -> dict[str, Any]:
            entries = [shape for result in results for shape in shapes_of(result, epsilon)]
            return {"success": True, "data": {"shapes": entries, "description": ""}}

        with service.bodies.holding() as held:
            service.check_room()
            image, prompts, epsilon = await service.read(request, held, read)
            return await service.answer(
                request, held, image, lambda *_: prompts, lambda results: shapes(results, epsilon)
            )


def prompts_of(params: Params, limits: Limits) -> list[Prompt]:
    """The objects that marks point at: one, or one for each of several rectangles.

    Raises:
        PromptError, RequestError: the marks mean nothing, or are too many.
    """
    if params.text_prompt and not params.marks:
        raise PromptError("this model knows no words: mark the object by a point or a rectangle")
    points, boxes = [], []
    for mark in params.marks:
        if len(mark.data) != (2 if mark.type == "point" else 4):
            raise PromptError("a point has 2 numbers, a rectangle 4")
        if mark.type == "point":
            points.append(Point(mark.data[0], mark.data[1], bool(mark.label)))
        elif mark.label == 0:
            raise PromptError("a rectangle marks an object: use points for what is not on it")
        else:
            x, y = sorted(mark.data[0::2]), sorted(mark.data[1::2])
            boxes.append(Box(x[0], y[0], x[1], y[1]))
    if not points and not boxes:
        raise PromptError("there is no mark: add a point or a rectangle")
    check_count(limits, max(len(boxes), 1), len(points))
    if len(boxes) > 1:
        if points:
            raise PromptError("points go with one rectangle: finish one object after the other")
        return [Prompt(box=box) for box in boxes]
    return [Prompt(tuple(points), box=boxes[0] if boxes else None)]


def shapes_of(result: Segmentation, epsilon: float) -> list[dict[str, Any]]:
    """The outer contours of a mask as closed polygons; `epsilon` is a part of their length."""
    box = result.box
    if box is None:
        return []
    tolerance = epsilon * 2 * (box.x1 - box.x0 + box.y1 - box.y0)
    return [
        {
            "label": LABEL,
            "shape_type": "polygon",
            "points": [*polygon.points.tolist(), polygon.points[0].tolist()],
            "score": float(result.score),
        }
        for polygon in result.polygons(tolerance)
        if not polygon.hole
    ]


def _check_model(name: str) -> None:
    if name != MODEL:
        raise RequestError(404, f"there is no model {name[:40]!a}: use {MODEL}")
