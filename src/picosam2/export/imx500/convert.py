"""Convert a quantized ONNX file to `packerOut.zip` by Sony's converter, and read its reports."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from picosam2._progress import Progress
from picosam2.export.imx500.check import ConvertError
from picosam2.export.imx500.environment import Environment, Java, refuse_quoted
from picosam2.export.imx500.processes import last_lines, run

NAME = "picosam2"
"""Of the network, inside the sensor's files."""

PACKED = "packerOut.zip"

_STAGES = (
    ("Starting SDSPconv", "compiling for the sensor"),
    ("ConvFe conversion finished", "writing the sensor's program"),
    ("Converter Backend successfully completed", "packing"),
)
"""The lines of the converter's log at which another part begins."""

_REASON = re.compile(r"\b(?:ERROR|FATAL|SEVERE)\b\s*:?\s*(.*)")
_CODES = {
    1: "it does not fit into the sensor, or the converter failed on it",
    2: "it holds an operator that the converter does not know",
    3: "one of its operators has settings that the converter does not take",
}
"""What the converter's exit codes mean."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of the network, as it lies in the sensor."""

    name: str
    shape: tuple[int, ...]
    """Channels, rows, columns."""
    bits: int
    signed: bool
    scale: float
    """A stored number times this is the number meant."""
    shift: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes in the sensor's memory."""

    total: int
    """The sensor's whole memory."""
    weights: int
    activations: int
    """The peak, with the input image, which stays in memory so that a host can read it."""
    reserved: int

    @property
    def used(self) -> int:
        """Bytes that the network needs."""
        return self.weights + self.activations + self.reserved


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The files that the converter wrote, and the content of its reports."""

    packed: Path
    memory: Memory
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: tuple[Path, ...]
    """Everything, `packed` among them."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: memory and tensors."""
        return {
            "memory": {**asdict(self.memory), "used": self.memory.used},
            "inputs": [asdict(tensor) for tensor in self.inputs],
            "outputs": [asdict(tensor) for tensor in self.outputs],
        }


def convert(
    network: Path,
    folder: Path,
    environment: Environment,
    java: Java,
    *,
    log: Path,
    progress: Progress | None = None,
) -> Converted:
    """Convert a quantized ONNX file in the empty folder `folder`.

    Raises:
        ToolsError: the converter cannot work in that folder.
        ConvertError: the converter refused the network or failed; the message says why.
    """
    refuse_quoted(folder, "TMPDIR")
    shutil.copyfile(network, folder / f"{NAME}.onnx")
    stages = iter(_STAGES)
    awaited = next(stages, None)
    done = 0

    def on_line(line: str) -> None:
        nonlocal awaited, done
        if awaited is not None and awaited[0] in line:
            done += 1
            if progress:
                progress(done, len(_STAGES) + 1, what=awaited[1])
            awaited = next(stages, None)

    if progress:
        progress(0, len(_STAGES) + 1, what="reading the quantized network")
    command = [str(environment.converter), "-i", f"{NAME}.onnx", "-o", "out"]
    before = log.stat().st_size if log.exists() else 0
    code = run(command, log=log, on_line=on_line, folder=folder, environment=java.variables())
    if code != 0:
        raise ConvertError(_failure(code, log, before))
    return read(folder / "out", log)


def _failure(code: int, log: Path, start: int) -> str:
    """One sentence from the part of the log after `start`, which the converter wrote."""
    text = log.read_bytes()[start:].decode("utf-8", "replace")
    reasons = [match[1].strip() for match in _REASON.finditer(text)]
    reason = next(iter(reasons), last_lines(log))
    reason = re.sub(r"^CODE: \[\w+\]\s*|\s*\[[^\[\]]*\.py:\d+\]$", "", reason)
    meaning = _CODES.get(code, f"exit code {code}")
    return f"Sony's converter did not take the network: {meaning} ({reason}); the log is {log}"


def read(folder: Path, log: Path) -> Converted:
    """Read the converter's output in `folder`.

    Raises:
        ConvertError: a file is missing or is not as the known versions of the converter write it.
    """
    packed, parameters = folder / PACKED, folder / "dnnParams.xml"
    try:
        if not zipfile.is_zipfile(packed):
            raise ValueError(f"there is no {PACKED}")
        root = ElementTree.parse(parameters).getroot()
        sizes, network = root.find("l2memory"), root.find("networks/network")
        if sizes is None or network is None:
            raise ValueError("dnnParams.xml lists no memory or no network")
        memory = Memory(
            total=int(sizes.attrib["totalSize"]),
            weights=int(sizes.attrib["coefficientsSize"]),
            activations=int(sizes.attrib["networksRuntimeSize"]),
            reserved=int(sizes.attrib["reservedMemorySize"]),
        )
        inputs, outputs = (
            _tensors(network.findall(f"{kind}Tensors/{kind}Tensor")) for kind in ("input", "output")
        )
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise ConvertError(
            f"what Sony's converter wrote cannot be read ({error}); the log is {log}"
        ) from error
    files = tuple(sorted(path for path in folder.iterdir() if path.is_file()))
    return Converted(packed=packed, memory=memory, inputs=inputs, outputs=outputs, files=files)


def _tensors(elements: list[ElementTree.Element]) -> tuple[Tensor, ...]:
    """The tensors in the order of their ordinals, which is not that of the file."""
    return tuple(_tensor(element) for element in sorted(elements, key=_ordinal))


def _ordinal(element: ElementTree.Element) -> int:
    return int(element.attrib["ordinal"])


def _tensor(element: ElementTree.Element) -> Tensor:
    dimensions = sorted(element.findall("dimensions/dimension"), key=_ordinal)
    return Tensor(
        name=element.attrib["name"],
        shape=tuple(int(dimension.attrib["size"]) for dimension in dimensions),
        bits=int(element.attrib["bitsPerElement"]),
        signed=element.attrib["format"] == "signed",
        scale=float(element.attrib["scale"]),
        shift=float(element.attrib["shift"]),
    )
