"""What runs the network: crops in, logits out. ONNX Runtime here; others follow the same protocol.

A runtime owns its preprocessing: it takes the 8-bit crops that `geometry.crop` makes.
`tests/contract` holds one suite that every runtime must pass.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from picosam2._files import sha256_file
from picosam2.errors import WeightsError
from picosam2.images import channels_first, normalize
from picosam2.runtimes.cpus import default_threads

METADATA_KEY = "picosam2"
"""Where an ONNX file keeps what `RuntimeInfo` tells, as JSON."""

# Activations of a crop are a few MB: those of a larger batch leave the caches and are allocated
# anew each time. On one core a crop took 6 ms in batches of up to 8, and 12 to 24 ms of 64.
_MAX_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What is known of the weights that a runtime holds."""

    name: str
    """The runtime: onnx, torch, ..."""
    input_size: int
    """Side of the crops, pixels."""
    channels: int
    """Logit channels: 1, or 2 for boxes and clicks apart."""
    weights_sha256: str
    """Of the weights file."""
    facts: dict[str, Any] = field(default_factory=dict, repr=False)
    """Everything else the weights file says of itself: recipe, scores, scorers, geometry."""
    output_size: int = 0
    """Side of the logits; the crops' if it is not given."""

    def __post_init__(self) -> None:
        if not self.output_size:
            object.__setattr__(self, "output_size", self.input_size)


class Runtime(Protocol):
    """Runs the network on a batch of crops."""

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Crops (B, S, S, 3) RGB uint8 to logits (B, K, S', S') float32, any B >= 1."""


def info_of(
    name: str, path: str | os.PathLike[str], facts: str | bytes | dict[str, Any]
) -> RuntimeInfo:
    """What the runtime `name` holds, by what the weights file `path` says, as JSON or read already.

    Raises:
        WeightsError: it does not say enough.
    """
    try:
        said = facts if isinstance(facts, dict) else json.loads(facts)
        if not isinstance(said.get("preprocessing", {}), dict):
            raise ValueError("its preprocessing is no table")
        return RuntimeInfo(
            name=name,
            input_size=int(said["input_size"]),
            channels=int(said["channels"]),
            weights_sha256=sha256_file(path),
            facts=said,
            output_size=int(said.get("output_size", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not say what it needs to ({error}): export it again"
        ) from error


def normalizes(facts: dict[str, Any]) -> bool:
    """Whether the graph that says so of itself normalizes crops, and takes their own numbers."""
    return bool(facts.get("preprocessing", {}).get("inside"))


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load an ONNX file that this project exported.

        Args:
            path: the file.
            threads: threads of one inference; by default as many as the process may use (`cpus`).

        Raises:
            WeightsError: missing, damaged, or not exported by this project.
        """
        import onnxruntime

        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"there are no weights at {path}: check the path")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if _overflows():
            # INT8 weights only: exact sums there, at some cost in time.
            options.add_session_config_entry("session.x64quantprecision", "1")
        threads = threads or default_threads()
        if threads is not None:
            options.intra_op_num_threads = threads

        def load() -> Any:
            return onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

        try:
            self._session = load()
        except Exception as error:  # onnxruntime raises a dozen private kinds
            raise WeightsError(f"{path} is no ONNX file that can be run: {error}") from error
        facts = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if facts is None:
            raise WeightsError(
                f"{path} is not a PicoSAM2 model: export one with `picosam2 export onnx`"
            )
        self._info = info_of("onnx", path, facts)
        # Some graphs normalize themselves: they take the crops' own numbers.
        self._plain = normalizes(self._info.facts)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        side, names = self._info.input_size, [output.name for output in outputs]
        fits = len(inputs) == 1 and list(inputs[0].shape[1:]) == [3, side, side]
        if not fits or "logits" not in names:
            raise WeightsError(
                f"{path} does not take crops of {side} pixels to logits, as it says: export it "
                "again"
            )
        self._input = inputs[0].name
        if self._info.facts.get("exact"):
            # It stands for another device's arithmetic: nothing is to be fused.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            self._session = load()

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._info

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Crops (B, S, S, 3) RGB uint8 to logits (B, K, S', S') float32."""
        if len(crops) <= _MAX_BATCH:
            return self._run(crops)
        parts = [self._run(crops[i : i + _MAX_BATCH]) for i in range(0, len(crops), _MAX_BATCH)]
        return np.concatenate(parts)

    def _run(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        given = channels_first(crops).astype(np.float32) if self._plain else normalize(crops)
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], {self._input: given})[0]
        return logits


class FlipAverage:
    """Another runtime that sees each crop twice, once mirrored, and answers with the mean.

    Somewhat better masks for twice the time.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._runtime.info

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Crops (B, S, S, 3) RGB uint8 to logits (B, K, S', S') float32, any B >= 1."""
        logits = self._runtime(np.concatenate([crops, crops[:, :, ::-1]]))
        mean = logits[: len(crops)] + logits[len(crops) :, ..., ::-1]
        mean *= 0.5
        return mean


def _overflows(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an x86 processor that adds products of uint8 and int8 in 16 bits.

    Those with AVX2 and without VNNI do, and onnxruntime lets them cut off what is too large.
    """
    try:
        with info.open() as stream:
            said = stream.read(8192)  # one core's part is enough
    except OSError:
        return False
    return "avx2" in said and "vnni" not in said
