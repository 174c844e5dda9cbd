"""Weights and training checkpoints: safetensors with a JSON header, written atomically.

Both are one file, so that tensors and what is said of them cannot part. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from picosam2._config import from_table
from picosam2._files import atomic_write
from picosam2.errors import CheckpointError, ConfigError, WeightsError
from picosam2.models.finder import Finder, FinderConfig
from picosam2.models.network import ModelConfig, PicoSAM2, read_config
from picosam2.models.views import FINDER, gives_no_masks

_Network = TypeVar("_Network", bound=nn.Module)

_KEY = "picosam2"  # of the JSON text in a file's header
_HASH_KEY = "tensors_sha256"  # in that text, of the rest of it and of all tensors


@dataclass(frozen=True, eq=False)
class Tensors:
    """What one file holds: tensors by name, and JSON-like facts about them."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], info: Mapping[str, Any]
) -> None:
    """Write tensors and facts to one file, atomically.

    Raises:
        CheckpointError: the file cannot be written, for instance because the disk is full.
    """
    solid = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            # As bytes: `save_file` puts a file of its own there, which others may not read.
            text = json.dumps({**info, _HASH_KEY: _digest(solid, info)}, sort_keys=True)
            temporary.write_bytes(save(solid, {_KEY: text}))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path} cannot be written ({reason}): make room there, or choose another place; what "
            "was written before is kept"
        ) from error


def _digest(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> str:
    """The SHA-256 of what a file holds, in hexadecimal."""
    as_read = json.loads(json.dumps(info))  # where all keys are text
    digest = hashlib.sha256(json.dumps(as_read, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Read what `write_tensors` wrote. `CheckpointError` if missing, damaged or foreign."""
    try:
        with safe_open(path, "pt") as file:
            info = json.loads((file.metadata() or {})[_KEY])
            if not isinstance(info, dict):
                raise ValueError("its description is no table")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stated = info.pop(_HASH_KEY, None)
        if stated not in (None, _digest(tensors, info)):  # files of before have none
            raise ValueError("its content is not what was written: get a whole copy")
        return Tensors(tensors, info)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error})") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path} was not written by this project: it names no model"
        ) from error


def save_weights(
    path: str | os.PathLike[str],
    model: PicoSAM2 | Finder,
    info: Mapping[str, Any],
    *,
    half: bool = False,
) -> None:
    """Write a model's weights, its configuration and facts such as recipe and scores.

    `half` rounds floating-point tensors to fp16, which halves the file.
    """
    tensors = {
        name: tensor.half() if half and tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    write_tensors(path, tensors, {**info, "model": asdict(model.config)})


def load_weights(path: str | os.PathLike[str], kind: type[ModelConfig] = ModelConfig) -> PicoSAM2:
    """The model in a weights file, fp32, in evaluation mode.

    Args:
        path: the file, of this or an older version.
        kind: the class of its configuration, which builds the network.

    Raises:
        WeightsError: missing, damaged, of another project or of another architecture.
    """
    return _load(path, lambda table: read_config(table, kind).build(), finds=False)


def load_finder(path: str | os.PathLike[str]) -> Finder:
    """The finder in a weights file, like `load_weights`, and with its errors."""
    return _load(
        path, lambda table: from_table(FinderConfig, table, where="model").build(), finds=True
    )


def _load(
    path: str | os.PathLike[str], build: Callable[[Any], _Network], *, finds: bool
) -> _Network:
    """The network that `build` makes of a weights file's model table, with the file's tensors.

    `finds` says whether it is to be a finder.
    """
    if not Path(path).exists():
        raise WeightsError(f"there are no weights at {path}: check the path")
    try:
        saved = read_tensors(path)
        if "model" not in saved.info:
            raise WeightsError(f"{path} names no model: a run keeps its weights.safetensors apart")
        if not finds and saved.info.get("kind") == FINDER:
            raise gives_no_masks(path)
        with torch.device("meta"):  # what a stranger's file describes takes no memory yet
            model = build(saved.info["model"])
        wanted = model.state_dict()
        tensors = {
            name: tensor.to(wanted[name].dtype) if name in wanted else tensor
            for name, tensor in saved.tensors.items()
        }
        model.load_state_dict(tensors, assign=True)
    except (CheckpointError, ConfigError, TypeError) as error:
        raise WeightsError(f"{path} holds no PicoSAM2 weights: {error}") from error
    except (RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path} holds weights of another architecture") from error
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path} holds numbers that are not finite, in {name}")
    return model.float().eval()
