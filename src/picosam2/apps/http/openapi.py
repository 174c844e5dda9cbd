"""What the server offers, as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from picosam2.apps.http.limits import Limits

_POINT = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 2,
    "maxItems": 3,
    "description": "x, y in pixels, and 1 (on the object, the default) or 0 (off it).",
}
_BOX = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "Left, top, right, bottom in pixels.",
}


def document(limits: Limits) -> dict[str, Any]:
    """The document for a server with these limits."""
    from importlib.metadata import version

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PicoSAM2",
            "version": version("picosam2"),
            "description": "Point at things in a picture, get their masks. Coordinates are "
            "pixels from the top left of the picture as it is shown (EXIF turned).",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/": {"get": _small("What this is.")},
            "/health": {"get": _small("Whether the server runs, and with which weights.")},
            "/metrics": {
                "get": {
                    "summary": "Counts, for Prometheus.",
                    "responses": {
                        "200": {
                            "description": "Prometheus' text form.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        "421": _ref("responses", "Error"),
                    },
                }
            },
            "/openapi.json": {"get": _small("This document.")},
            "/v1/segment": {
                "post": {
                    "summary": "Masks of a picture that comes with the request.",
                    "parameters": _QUERY,
                    "requestBody": {
                        "required": True,
                        "content": {
                            "image/*": {"schema": {"type": "string", "format": "binary"}},
                            "application/octet-stream": {
                                "schema": {"type": "string", "format": "binary"}
                            },
                            "application/json": {
                                "schema": {
                                    "allOf": [
                                        _ref("schemas", "Asked"),
                                        {"required": ["image"]},
                                    ]
                                }
                            },
                        },
                    },
                    "responses": _MASKS,
                }
            },
            "/v1/sessions": {
                "post": {
                    "summary": "Keep a picture, to click on it many times.",
                    "requestBody": {
                        "required": True,
                        "content": {
                            "image/*": {"schema": {"type": "string", "format": "binary"}},
                            "application/octet-stream": {
                                "schema": {"type": "string", "format": "binary"}
                            },
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "properties": {"image": _IMAGE},
                                    "required": ["image"],
                                    "additionalProperties": False,
                                }
                            },
                        },
                    },
                    "responses": {
                        "201": {
                            "description": "The picture is kept.",
                            "content": {"application/json": {"schema": _ref("schemas", "Session")}},
                        },
                        **_ERRORS,
                    },
                }
            },
            "/v1/sessions/{session}/segment": {
                "parameters": [_SESSION],
                "post": {
                    "summary": "Masks of a kept picture.",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": _ref("schemas", "Asked")}},
                    },
                    "responses": {**_MASKS, "404": _ref("responses", "Error")},
                },
            },
            "/v1/sessions/{session}": {
                "parameters": [_SESSION],
                "delete": {
                    "summary": "Forget a picture.",
                    "responses": {
                        "204": {"description": "It is forgotten."},
                        "404": _ref("responses", "Error"),
                        "421": _ref("responses", "Error"),
                    },
                },
            },
        },
        "components": {
            "schemas": {
                "Prompt": {
                    "type": "object",
                    "description": "One object: points, a box, or both.",
                    "properties": {
                        "points": {"type": "array", "items": _POINT},
                        "box": _BOX,
                    },
                    "additionalProperties": False,
                },
                "Asked": {
                    "type": "object",
                    "properties": {
                        "image": _IMAGE,
                        "prompts": {
                            "type": "array",
                            "items": _ref("schemas", "Prompt"),
                            "minItems": 1,
                            "maxItems": limits.prompts,
                        },
                        "multimask": {"type": "boolean", "default": False},
                        "format": _FORMAT,
                    },
                    "required": ["prompts"],
                    "additionalProperties": False,
                },
                "Session": {
                    "type": "object",
                    "properties": {
                        "session": {"type": "string"},
                        "width": {"type": "integer"},
                        "height": {"type": "integer"},
                        "expires_in": {
                            "type": "number",
                            "description": "Seconds without a click until it is forgotten.",
                        },
                    },
                    "required": ["session", "width", "height", "expires_in"],
                },
                "Masks": {
                    "type": "object",
                    "properties": {
                        "width": {"type": "integer"},
                        "height": {"type": "integer"},
                        "masks": {"type": "array", "items": _ref("schemas", "Mask")},
                    },
                    "required": ["width", "height", "masks"],
                },
                "Mask": {
                    "type": "object",
                    "properties": {
                        "prompt": _ref("schemas", "Prompt"),
                        "box": {"oneOf": [_BOX, {"type": "null"}]},
                        "score": {
                            "type": "number",
                            "minimum": 0,
                            "maximum": 1,
                            "description": "The predicted IoU with the object.",
                        },
                        "area": {"type": "integer", "description": "Pixels."},
                        "size": {"type": "array", "items": {"type": "integer"}},
                        "rle": {
                            "type": "object",
                            "description": "COCO's compressed run lengths.",
                            "properties": {
                                "size": {"type": "array", "items": {"type": "integer"}},
                                "counts": {"type": "string"},
                            },
                        },
                        "polygons": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "points": {"type": "array", "items": {"type": "array"}},
                                    "hole": {"type": "boolean"},
                                },
                            },
                        },
                    },
                },
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                },
            },
            "responses": {
                "Error": {
                    "description": "What is wrong, in one sentence.",
                    "content": {"application/json": {"schema": _ref("schemas", "Error")}},
                }
            },
        },
        "x-limits": {
            "body_bytes": limits.body,
            "pixels": limits.pixels,
            "prompts": limits.prompts,
            "points": limits.points,
            "sessions": limits.sessions,
            "seconds": limits.seconds,
        },
    }


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _small(summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": {
                "description": "JSON.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "421": _ref("responses", "Error"),
        },
    }


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


_IMAGE = {"type": "string", "contentEncoding": "base64", "description": "A picture file's bytes."}
_FORMAT = {
    "type": "string",
    "enum": ["json", "mask", "overlay", "cutout"],
    "default": "json",
    "description": "JSON, or a PNG: the mask (indexed for several objects), the picture with the "
    "masks drawn on it, or one object on a clear ground.",
}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_QUERY = [
    _parameter("point", _TEXTS, "X,Y or X,Y,LABEL; each is one object. For a picture as body."),
    _parameter("box", _TEXTS, "X0,Y0,X1,Y1; each is one object. For a picture as body."),
    _parameter("multimask", {"type": "boolean"}, "Three masks for each point."),
    _parameter("format", _FORMAT, "The answer's form."),
]
_SESSION = {"name": "session", "in": "path", "required": True, "schema": {"type": "string"}}
_ERRORS = {
    status: _ref("responses", "Error")
    for status in ("400", "408", "413", "415", "421", "500", "503")
}
_MASKS = {
    "200": {
        "description": "The masks.",
        "content": {
            "application/json": {"schema": _ref("schemas", "Masks")},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **_ERRORS,
}
