"""Weights from a folder that `picosam2 export hub` wrote, or from the Hugging Face Hub.

`config.json` names the files and their SHA-256. Only it and one of these files are read or fetched,
and none of them can hold code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from picosam2._files import sha256_file
from picosam2.errors import WeightsError, require
from picosam2.runtimes.metadata import MAX_BYTES, parse_document

MODEL_TYPE: Final = "picosam2"
"""What `config.json` calls the model."""

CONFIG: Final = "config.json"

FILES: Final = {
    "safetensors": "model.safetensors",
    "onnx": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
}
"""The weights in a folder for the hub, by what they are; the names that transformers.js uses."""

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLES: Final = frozenset((".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"))


def pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    runtime: str = "onnx",
    quantized: bool = False,
) -> Path:
    """The weights file of a folder, or of a model on the hub, checked by its SHA-256.

    Args:
        source: a folder, or the name of a model on the hub, "org/name".
        revision: of a model on the hub: a commit's hash, which never changes, a tag or a branch.
        runtime: what is to run the file.
        quantized: the one in 8 bits.

    Raises:
        WeightsError: there is no such model, or it is damaged, or not of this project.
        MissingExtraError: huggingface_hub is not installed.
    """
    if quantized and runtime == "torch":
        raise WeightsError("the weights in 8 bits are for the runtime onnx: leave out torch")
    if runtime not in ("onnx", "openvino", "torch"):
        raise WeightsError(
            f"there are no files for {runtime} on the hub: use onnx, openvino or torch"
        )
    kind = "int8" if quantized else "safetensors" if runtime == "torch" else "onnx"
    fetch = _opener(source, revision)
    files = _files(fetch(CONFIG), source)
    name = FILES[kind]
    if name not in files:
        raise WeightsError(f"{source} has no {name}: it has {', '.join(files) or 'no weights'}")
    path = fetch(name)
    if sha256_file(path) != files[name]:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is not the one in {CONFIG}; fetch it again"
        )
    return path


def _opener(source: str | os.PathLike[str], revision: str | None) -> Callable[[str], Path]:
    """What gives the path of one of the model's files."""
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise WeightsError(f"{folder} is a folder, which has no revisions: leave it out")
        return _in_folder(folder)
    if not _NAME.fullmatch(os.fspath(source)):
        raise WeightsError(
            f"{source} is neither a folder nor the name of a model on the hub: give org/name"
        )
    return _on_hub(os.fspath(source), revision)


def _in_folder(folder: Path) -> Callable[[str], Path]:
    pickles = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in _PICKLES
    )
    if pickles:
        raise WeightsError(
            f"{folder} holds {pickles[0]}, a pickle, which can run any code when it is opened: "
            "give a folder that `picosam2 export hub` wrote"
        )

    def fetch(name: str) -> Path:
        path = folder / name
        if not path.is_file():
            raise WeightsError(
                f"there is no {name} in {folder}: give a folder that `picosam2 export hub` wrote"
            )
        return path

    return fetch


def _on_hub(model: str, revision: str | None) -> Callable[[str], Path]:
    hub = require("huggingface_hub", "hub")
    errors = require("huggingface_hub.errors", "hub")

    def fetch(name: str) -> Path:
        at = f"{model} at {revision}" if revision else model
        try:
            return Path(hub.hf_hub_download(model, name, revision=revision))
        except errors.EntryNotFoundError as error:
            if not isinstance(error, errors.LocalEntryNotFoundError):
                raise WeightsError(f"{at} has no {name}: it is no model of this kind") from error
            raise WeightsError(
                f"the hub cannot be reached, and {name} of {at} is not in the cache: connect to "
                "the network, or give a folder"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise WeightsError(f"{model} has no revision {revision}: check it") from error
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"there is no model {model} on the hub, or it is private: check the name, or log "
                "in with `hf auth login`"
            ) from error
        except errors.HFValidationError as error:
            raise WeightsError(f"{model} is no name of a model on the hub: {error}") from error
        except (errors.HfHubHTTPError, OSError) as error:
            raise WeightsError(f"{at} cannot be fetched from the hub: {error}") from error

    return fetch


def _files(config: Path, source: Any) -> Mapping[str, str]:
    """The files that a `config.json` names, and their SHA-256."""
    try:
        with config.open("rb") as stream:
            document = parse_document(stream.read(MAX_BYTES + 1))
    except (OSError, WeightsError) as error:
        raise WeightsError(f"{config} cannot be read: {error}") from error
    files = document.get("files")
    if document.get("model_type") != MODEL_TYPE or not isinstance(files, Mapping):
        raise WeightsError(f"{source} is no PicoSAM2 model: its {CONFIG} says so")
    return {str(name): str(digest) for name, digest in files.items()}
