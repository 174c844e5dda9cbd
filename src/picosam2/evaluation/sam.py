"""Models of the SAM family, used as peers under our protocols and as teachers.

`open_sam` opens one by KIND:WHERE:

    sam2:FOLDER|HUB-ID      SAM 2 or 2.1 in `transformers`; likewise sam: (the first) and edgetam:
    onnx:FOLDER             SAM as encoder.onnx and decoder.onnx; or onnx:ENCODER,DECODER

Every model encodes an image once and decodes any number of prompts from that. The image is prepared
here, not by the library's processor, which needs torchvision: SAM 2 (and EdgeTAM) see the whole
image squashed to a square; SAM sees its long side at the square's side, padded with zeros at the
right and bottom. Both scale to 0..1 and normalize by ImageNet's mean and standard deviation. The
logits stay at the resolution of the mask decoder. Nothing is unpickled.

A position in these models counts pixels from the center of the first one, ours from its corner:
their prompt encoders add the half that `prompts` has already, so it is taken off here.

Shape suffixes: N prompts, P points of each, M masks of each, s side of the decoder's maps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2._files import sha256_file
from picosam2.errors import ConfigError, WeightsError, require
from picosam2.geometry import Window
from picosam2.images import normalize
from picosam2.prompts import Prompt
from picosam2.runtimes.ort import import_onnxruntime, session_options

CHUNK = 32
"""Prompts in one pass of the mask decoder."""

RgbImage = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the network takes it: (1, 3, S, S) float32, and the scale to map back."""

    pixels: Floats
    scale_x: float
    scale_y: float
    """Network pixels for one image pixel."""

    @property
    def window(self) -> Window:
        """What the network's square covers, in the image's pixels; SAM's reaches past the image."""
        side = self.pixels.shape[-1]
        return Window(0, 0, side / self.scale_x, side / self.scale_y)


def squash(image: RgbImage, side: int) -> Prepared:
    """SAM 2's way: the whole image (H, W, 3) at `side` x `side`, its aspect not kept."""
    height, width = image.shape[:2]
    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    return Prepared(normalize(resized[None]), side / width, side / height)


def fit(image: RgbImage, side: int) -> Prepared:
    """SAM's way: the long side at `side` pixels, then zeros (after normalization) to a square."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    new_width, new_height = int(width * scale + 0.5), int(height * scale + 0.5)
    resized = np.asarray(
        Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    )
    pixels = np.zeros((1, 3, side, side), np.float32)
    pixels[:, :, :new_height, :new_width] = normalize(resized[None])
    return Prepared(pixels, new_width / width, new_height / height)


@dataclass(frozen=True, eq=False)
class Encoded:
    """An image after the model's encoder."""

    prepared: Prepared
    features: Any


@dataclass(frozen=True, eq=False)
class Decoded:
    """A prompt's masks."""

    maps_Mss: Floats
    """Logits."""
    scores_M: Floats
    """The IoU that the model expects of each."""


class SamModel(Protocol):
    """A model of the SAM family."""

    @property
    def name(self) -> str:
        """KIND:WHERE, as it was opened."""

    @property
    def side(self) -> int:
        """Side of the square that the network sees, pixels."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for a result file: file, bytes, sha256, runtime, precision, parameters."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, in JSON's types: hashes of weights and configuration."""

    def encode(self, image: RgbImage) -> Encoded:
        """Encode an image (H, W, 3) RGB uint8."""

    def decode(
        self, encoded: Encoded, prompts: Sequence[Prompt], *, several: bool
    ) -> list[Decoded]:
        """The masks of each prompt: `several` to choose from, or one for unambiguous prompts."""


# --- transformers -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model in `transformers` is loaded and shown an image."""

    kind: str
    """What stands before the colon."""
    model: str
    """Its class."""
    prepare: Callable[[RgbImage, int], Prepared]


FAMILIES: dict[str, Family] = {
    "sam2": Family(kind="sam2", model="Sam2Model", prepare=squash),
    # The published SAM 2 folders describe the video model, whose image part is a Sam2Model.
    "sam2_video": Family(kind="sam2", model="Sam2Model", prepare=squash),
    "edgetam": Family(kind="edgetam", model="EdgeTamModel", prepare=squash),
    "edgetam_video": Family(kind="edgetam", model="EdgeTamModel", prepare=squash),
    "sam": Family(kind="sam", model="SamModel", prepare=fit),
}
"""Known model types, by the `model_type` of their configuration."""

KINDS = ("sam2", "sam", "edgetam", "onnx")
"""What may stand before the colon."""


class TransformersSam:
    """A model of `transformers`: SAM 2, SAM, EdgeTAM."""

    def __init__(
        self,
        model: Any,
        family: Family,
        *,
        name: str = "sam",
        device: str = "cpu",
        precision: str = "fp32",
        config_sha256: str = "",
        file: str = "",
        bytes: int = 0,
    ) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: of the class that `family` names.
            family: its family.
            name: what a person calls it.
            device: where it runs: cpu, cuda or cuda:N.
            precision: fp32, or bf16 by autocast.
            config_sha256: of its configuration file.
            file: the name of its weights' folder.
            bytes: of its weights' files.
        """
        self._torch = require("torch", "train")
        self.name, self._family, self._precision = name, family, precision
        self._device = self._torch.device(device)
        self.model = model.eval().to(self._device)
        self.side = input_side(model.config)
        self._config_sha256, self._file, self._bytes = config_sha256, file, bytes
        self._weights_sha256 = _hash_tensors(model)

    @classmethod
    def load(
        cls, kind: str, where: str, *, fetch: bool = False, device: str = "cpu",
        precision: str = "fp32",
    ) -> TransformersSam:  # fmt: skip
        """Open a folder in Hugging Face's format, or with `fetch` a model on its hub.

        Raises:
            WeightsError: there is no such model, or it is not of that kind.
            MissingExtraError: without `transformers`.
        """
        model, family = load_model(where, fetch=fetch)
        if family.kind != kind:
            raise WeightsError(
                f"{where} holds a model of type {model.config.model_type}: say "
                f"{family.kind}:{where}"
            )
        file = require("transformers", "sam2").utils.cached_file(where, "config.json")
        return cls(
            model, family, name=f"{kind}:{where}", device=device, precision=precision,
            config_sha256=sha256_file(file), file=Path(where).resolve().name,
            bytes=sum(path.stat().st_size for path in Path(file).parent.glob("*.safetensors")),
        )  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for a result file."""
        return {
            "name": self.name,
            "file": self._file,
            "bytes": self._bytes,
            "sha256": self._weights_sha256,
            "runtime": "transformers",
            "precision": self._precision,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on."""
        return {
            "weights": self._weights_sha256,
            "config": self._config_sha256,
            "precision": self._precision,
            "model": self._family.model,
            "input_size": self.side,
        }

    def encode(self, image: RgbImage) -> Encoded:
        """Encode an image (H, W, 3) RGB uint8."""
        prepared = self._family.prepare(image, self.side)
        with self._computing():
            # A list of feature maps for SAM 2, one map for SAM; `forward` takes either back.
            pixels = self._torch.from_numpy(prepared.pixels).to(self._device)
            return Encoded(prepared, self.model.get_image_embeddings(pixels))

    def decode(
        self, encoded: Encoded, prompts: Sequence[Prompt], *, several: bool
    ) -> list[Decoded]:
        """The masks of each prompt."""
        answers: list[Decoded] = []
        for _, alike in groupby(prompts, lambda p: (len(p.points), p.box is None)):
            group = list(alike)
            for start in range(0, len(group), CHUNK):
                answers += self._decode(encoded, group[start : start + CHUNK], several)
        return answers

    def _decode(
        self, encoded: Encoded, prompts: Sequence[Prompt], several: bool
    ) -> Iterator[Decoded]:
        """One pass of the mask decoder, for prompts with equal numbers of points and boxes."""
        inputs: dict[str, Any] = {}
        places = [network_places(prompt, encoded.prepared) for prompt in prompts]
        if prompts[0].points:
            inputs["input_points"] = self._tensor([points for points, _, _ in places])
            labels = self._torch.tensor([[labels.tolist() for _, labels, _ in places]])
            inputs["input_labels"] = labels.to(self._device)
        if prompts[0].box is not None:
            inputs["input_boxes"] = self._tensor([box for _, _, box in places])
        with self._computing():
            output = self.model(
                image_embeddings=encoded.features, multimask_output=several, **inputs
            )
            maps_NMss = output.pred_masks[0].float().cpu().numpy()
            scores_NM = output.iou_scores[0].float().cpu().numpy()
        return map(Decoded, maps_NMss, scores_NM)

    def _tensor(self, arrays: Sequence[Floats | None]) -> Any:
        """Arrays of the prompts, with a first dimension for the one image, where the model is."""
        stacked = np.stack([array for array in arrays if array is not None])[None]
        return self._torch.from_numpy(stacked).to(self._device)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the chosen precision; raise `ConfigError` if the GPU's memory is too small."""
        from picosam2.models.devices import autocast

        torch = self._torch
        try:
            with torch.inference_mode(), autocast(self._device.type, self._precision):
                yield
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{self.name} does not fit into the GPU's memory: use a smaller model, or "
                "--device cpu"
            ) from error


def network_places(
    prompt: Prompt, shown: Prepared
) -> tuple[Floats, npt.NDArray[np.int64], Floats | None]:
    """A prompt's points (P, 2), their labels (P,) and its box (4,), in the network's pixels."""
    scale = np.array([shown.scale_x, shown.scale_y])
    places = np.array([(point.x, point.y) for point in prompt.points]).reshape(-1, 2)
    labels = np.array([int(point.positive) for point in prompt.points], np.int64)
    box = prompt.box
    corners = None
    if box is not None:
        corners = np.array([box.x0, box.y0, box.x1, box.y1]) * np.tile(scale, 2) - 0.5
    return (
        (places * scale - 0.5).astype(np.float32),
        labels,
        None if corners is None else corners.astype(np.float32),
    )


def load_model(where: str | os.PathLike[str], *, fetch: bool = False) -> tuple[Any, Family]:
    """A model of `transformers` in evaluation mode, with its family; nothing is unpickled.

    Args:
        where: a folder in Hugging Face's format.
        fetch: `where` may also be the name of a model on the Hugging Face hub.

    Raises:
        WeightsError: there is no such folder or model, or it is not of a known family.
        MissingExtraError: without `transformers`.
    """
    folder = Path(where)
    local = folder.is_dir() or not fetch
    if local and not ((folder / "config.json").is_file() and any(folder.glob("*.safetensors"))):
        raise WeightsError(
            f"{folder} holds no model: it needs a config.json and a model.safetensors"
        )
    transformers = require("transformers", "sam2")
    # Errors are raised as exceptions; warnings and progress bars are not shown.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    require("huggingface_hub.utils.logging", "sam2").set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(where, local_files_only=local)
        family = FAMILIES[config.model_type]
    except KeyError as error:
        raise WeightsError(
            f"{where} holds a model of type {error}: known are {', '.join(FAMILIES)}"
        ) from error
    except Exception as error:  # of transformers and of the hub's client, many private kinds
        if local:
            raise WeightsError(f"{folder / 'config.json'} cannot be read: {error}") from error
        raise WeightsError(
            f"there is no folder {where}, and no model of that name could be fetched from the "
            f"Hugging Face hub: check the name and the network ({type(error).__name__})"
        ) from error
    try:
        model = getattr(transformers, family.model).from_pretrained(
            where, local_files_only=local, use_safetensors=True
        )
    except Exception as error:  # of safetensors, torch and transformers, many private kinds
        raise WeightsError(f"the model in {where} cannot be loaded: {error}") from error
    return model.eval(), family


def input_side(config: Any) -> int:
    """The side of the square that the network sees, pixels."""
    size = getattr(config.prompt_encoder_config, "image_size", None)
    size = config.vision_config.image_size if size is None else size
    return int(size if isinstance(size, int) else size[0])


def _hash_tensors(model: Any) -> str:
    """SHA-256 of a model's weights, by name, whatever files they came from."""
    torch = require("torch", "train")
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        solid = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(solid.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# --- ONNX ---------------------------------------------------------------------------------------


_SURE = 1e-4  # the probability that stands for none, whose logit is about -9


class OnnxSam:
    """SAM as two ONNX files, in the layout of its authors' export script.

    The encoder takes (1, 3, S, S) normalized pixels, the long side at S and zeros at the right and
    bottom, to embeddings. The decoder takes `image_embeddings`, `point_coords` (1, P, 2),
    `point_labels` (1, P), `mask_input` (1, 1, m, m), `has_mask_input` (1,) and `orig_im_size` (2,)
    to `iou_predictions` (1, M) and `low_res_masks` (1, M, s, s). Labels are 1 for a point on the
    object, 0 for one off it, 2 and 3 for the corners of a box, and -1 for the point that stands
    where there is no box.
    """

    INPUTS = (
        "image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input",
        "orig_im_size",
    )  # fmt: skip
    OUTPUTS = ("low_res_masks", "iou_predictions")

    def __init__(
        self, encoder: Path, decoder: Path, *, name: str = "onnx", threads: int | None = None
    ) -> None:
        """Open two files.

        Raises:
            WeightsError: they are missing, damaged or of another layout.
        """
        self.name, self._files = name, (encoder, decoder)
        self._encoder, self._decoder = _session(encoder, threads), _session(decoder, threads)
        inputs, needed = self._encoder.get_inputs(), self._decoder.get_inputs()
        side = inputs[0].shape[-1] if len(inputs) == 1 and len(inputs[0].shape) == 4 else None
        if side is None or inputs[0].shape[1] != 3:
            raise WeightsError(f"{encoder} is no encoder of SAM: it must take (1, 3, side, side)")
        self.side = side if isinstance(side, int) else 1024  # a name stands for any size
        mask = [entry.shape[-1] for entry in needed if entry.name == "mask_input"]
        lacking = {*self.INPUTS} - {entry.name for entry in needed}
        lacking |= {*self.OUTPUTS} - {entry.name for entry in self._decoder.get_outputs()}
        if lacking:
            raise WeightsError(f"{decoder} is no decoder of SAM: it has no {min(lacking)}")
        self._mask_side = mask[0] if isinstance(mask[0], int) else None
        scores = {entry.name: entry.shape for entry in self._decoder.get_outputs()}
        self._one_mask = scores["iou_predictions"][-1] == 1
        self._hashes = [sha256_file(file) for file in self._files]

    @classmethod
    def load(cls, where: str, *, threads: int | None = None) -> OnnxSam:
        """Open `encoder.onnx` and `decoder.onnx` of a folder, or two files with a comma between.

        Raises:
            WeightsError: see `__init__`.
        """
        encoder, comma, decoder = where.partition(",")
        files = [Path(encoder), Path(decoder)] if comma else []
        if not comma and Path(where).is_dir():
            files = [Path(where) / "encoder.onnx", Path(where) / "decoder.onnx"]
        for file in files:
            if not file.is_file():
                raise WeightsError(
                    f"there is no file {file}: check the path, or give onnx:ENCODER,DECODER"
                )
        if not files:
            raise WeightsError(
                f"onnx:{where} names no model of the SAM family: give a folder with encoder.onnx "
                "and decoder.onnx, or onnx:ENCODER,DECODER"
            )
        return cls(*files, name=f"onnx:{where}", threads=threads)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for a result file."""
        return {
            "name": self.name,
            "file": " + ".join(file.name for file in self._files),
            "bytes": sum(file.stat().st_size for file in self._files),
            "sha256": self._hashes[0],
            "decoder_sha256": self._hashes[1],
            "runtime": "onnx",
            "precision": "fp32",
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on."""
        return {"weights": self._hashes, "precision": "fp32", "input_size": self.side}

    def encode(self, image: RgbImage) -> Encoded:
        """Encode an image (H, W, 3) RGB uint8."""
        prepared = fit(image, self.side)
        name = self._encoder.get_inputs()[0].name
        features = self._encoder.run(None, {name: prepared.pixels})[0]
        return Encoded(prepared, (features, np.array(image.shape[:2], np.float32)))

    def decode(
        self, encoded: Encoded, prompts: Sequence[Prompt], *, several: bool
    ) -> list[Decoded]:
        """The masks of each prompt; a prompt's mask is the earlier one that its points correct."""
        features, size = encoded.features
        side = self._mask_side or 4 * features.shape[-1]
        # A decoder that gives one mask chooses it by the number of points: of fewer than three it
        # takes the best of several masks. A padding point more says that one is meant.
        least = 3 if self._one_mask and not several else 0
        answers = []
        for prompt in prompts:
            coords, labels = _as_points(*network_places(prompt, encoded.prepared), least=least)
            maps, scores = self._decoder.run(
                list(self.OUTPUTS),
                {
                    "image_embeddings": features,
                    "point_coords": coords,
                    "point_labels": labels,
                    "mask_input": _as_mask_input(prompt, side),
                    "has_mask_input": np.array([prompt.mask is not None], np.float32),
                    "orig_im_size": size,
                },
            )
            # Of four masks the first is the one for unambiguous prompts.
            kept = slice(None)
            if maps.shape[1] == 4:
                kept = slice(1, None) if several else slice(0, 1)
            answers.append(Decoded(maps[0, kept], scores[0, kept]))
        return answers


def _as_points(
    points: Floats, labels: npt.NDArray[np.int64], box: Floats | None, *, least: int = 0
) -> tuple[Floats, Floats]:
    """A prompt as SAM's exported decoder takes it: coordinates (1, P, 2) and labels (1, P).

    Padding points, of label -1, make it at least `least` points.
    """
    if box is None:
        more, kinds = np.zeros((1, 2), np.float32), [-1]
    else:
        more, kinds = box.reshape(2, 2), [2, 3]
    lacking = max(least - len(points) - len(more), 0)
    places = np.concatenate([points, more, np.zeros((lacking, 2), np.float32)])
    kinds = [*labels.tolist(), *kinds, *[-1] * lacking]
    return places[None].astype(np.float32), np.array([kinds], np.float32)


def _as_mask_input(prompt: Prompt, side: int) -> Floats:
    """A prompt's mask as SAM's exported decoder takes it: logits (1, 1, side, side) float32.

    The image's long side is `side`; below and at the right stands what the object is not. Zeros
    where the prompt has no mask.
    """
    if prompt.mask is None:
        return np.zeros((1, 1, side, side), np.float32)
    share = np.clip(prompt.mask.astype(np.float32), _SURE, 1 - _SURE)
    logits = np.log(share / (1 - share))
    height, width = logits.shape
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(logits).resize(size, Image.Resampling.BILINEAR)
    placed = np.full((side, side), logits.dtype.type(np.log(_SURE)), np.float32)
    placed[: size[1], : size[0]] = np.asarray(small)
    return placed[None, None]


def _session(file: Path, threads: int | None) -> Any:
    onnxruntime, options = import_onnxruntime(), session_options(threads)
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen private kinds
        raise WeightsError(f"{file} is no ONNX file that can be run: {error}") from error


def open_sam(
    spec: str,
    *,
    fetch: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> SamModel:
    """The model that `spec`, "KIND:WHERE", means.

    Args:
        spec: see the top of this module.
        fetch: WHERE may also be the name of a model on the Hugging Face hub.
        device: where a model of `transformers` runs: cpu, cuda or cuda:N.
        precision: what it computes with: fp32, or bf16 by autocast.
        threads: of an ONNX pair; of torch they are set for the whole process.

    Raises:
        ConfigError: no such kind.
        WeightsError: the model is missing, damaged or of another kind.
        MissingExtraError: what runs it is not installed.
    """
    kind, colon, where = spec.partition(":")
    if not colon or not where or kind not in KINDS:
        known = ", ".join(f"{name}:..." for name in KINDS)
        raise ConfigError(f"{spec!r} names no model of the SAM family: write one of {known}")
    if kind == "onnx":
        return OnnxSam.load(where, threads=threads)
    return TransformersSam.load(kind, where, fetch=fetch, device=device, precision=precision)
