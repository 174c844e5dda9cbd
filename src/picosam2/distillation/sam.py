"""Teachers of the SAM family: `transformers` models, and pairs of ONNX files.

The whole photo goes through the image encoder once; all of its prompts are decoded from that. The
preprocessing is `evaluate.peers`' (the resize to the network's square and the normalisation), and
the logits stay at the resolution that the mask decoder gives, over the part of the photo's plane
that the square covers: whoever wants them elsewhere resamples them once.

A position in these models counts pixels from the centre of the first one: their prompt encoders
add the half that `prompts` has already.

Shape suffixes: N prompts, M masks of each, s side of the decoder's maps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from picosam2 import geometry
from picosam2._files import sha256_file
from picosam2.distillation.protocol import Target, Taught, TeacherConfig, fingerprint, torch_device
from picosam2.errors import ConfigError, WeightsError, require
from picosam2.evaluation.peers import Family, Prepared, fit, input_side, load_model
from picosam2.geometry import Window

KINDS: dict[str, tuple[str, ...]] = {
    "sam2": ("sam2", "sam2_video"),
    "sam": ("sam",),
    "edgetam": ("edgetam", "edgetam_video"),
}
"""The `model_type`s in `transformers` of each kind of teacher."""

_CHUNK = 32  # prompts in one pass of the mask decoder

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def choose(
    maps_Mss: Floats, scores_M: Floats, window: Window, target: Target, by: str, photo: Picture
) -> Taught:
    """The answer among a prompt's masks, `by` their predicted IoU or by the truth's agreement."""
    rank = np.where(np.isnan(scores_M), -np.inf, scores_M)
    if by == "truth":
        if target.mask is None:
            raise ConfigError("a mask cannot be chosen by a truth that is not known")
        height, width = photo.shape[:2]
        rank = np.array(
            [geometry.paste_region(one, window, height, width).iou(target.mask) for one in maps_Mss]
        )
    best = int(rank.argmax())
    return Taught(logits=maps_Mss[best], window=window, predicted_iou=float(scores_M[best]))


def prompt_arrays(
    targets: Sequence[Target], shown: Prepared, prompt: str
) -> tuple[Floats | None, Floats | None]:
    """Points (N, 2) and boxes (N, 4) in the network's pixels, as the models count them, or None."""
    scale = np.array([shown.scale_x, shown.scale_y])
    points = np.array([(t.point.x, t.point.y) for t in targets]).reshape(-1, 2) * scale - 0.5
    corners = [(t.box.x0, t.box.y0, t.box.x1, t.box.y1) for t in targets]
    boxes = np.array(corners).reshape(-1, 4) * np.tile(scale, 2) - 0.5
    return (
        None if prompt == "box" else points.astype(np.float32),
        None if prompt == "point" else boxes.astype(np.float32),
    )


def plane(shown: Prepared, side: int) -> Window:
    """What the network's square covers, in the photo's pixels; SAM's reaches past the photo."""
    return Window(0, 0, side / shown.scale_x, side / shown.scale_y)


class SamTeacher:
    """A model of `transformers`: SAM 2, SAM, EdgeTAM."""

    def __init__(
        self, model: Any, family: Family, *, name: str, config: TeacherConfig, described: str = ""
    ) -> None:
        """Ask a model that is loaded already.

        `described` is the SHA-256 of its configuration, for the fingerprint.
        """
        self.name, self._config, self._family = name, config, family
        self._device = torch.device(torch_device(config.device))
        self._model = model.eval().to(self._device)
        self._side = input_side(model.config)
        self.settings: dict[str, Any] = {
            "prompt": config.prompt,
            "choose": config.choose,
            "precision": config.precision,
            "model": family.model,
            "input_size": self._side,
        }
        self.fingerprint = fingerprint(
            weights=_hash_tensors(model), config=described, **self.settings
        )

    @classmethod
    def load(cls, kind: str, where: str, config: TeacherConfig) -> SamTeacher:
        """Open a folder, or fetch a model from the Hugging Face hub.

        Raises:
            WeightsError: there is no such model, or it is not of that kind.
            MissingExtraError: without `transformers`.
        """
        model, family = load_model(where, fetch=True)
        if model.config.model_type not in KINDS[kind]:
            fitting = [k for k, types in KINDS.items() if model.config.model_type in types]
            raise WeightsError(
                f"{where} holds a model of type {model.config.model_type}: say {fitting[0]}:{where}"
            )
        file = require("transformers", "sam2").utils.cached_file(where, "config.json")
        return cls(
            model, family, name=f"{kind}:{where}", config=config, described=sha256_file(file)
        )

    def __call__(self, photo: Picture, targets: Sequence[Target]) -> list[Taught]:
        """One answer for each target; the photo is encoded once."""
        if not targets:
            return []
        shown = self._family.prepare(photo, self._side)
        window = plane(shown, self._side)
        points_N2, boxes_N4 = prompt_arrays(targets, shown, self._config.prompt)
        found: list[Taught] = []
        with torch.inference_mode(), self._computing():
            seen = self._model.get_image_embeddings(torch.from_numpy(shown.pixels).to(self._device))
            for start in range(0, len(targets), _CHUNK):
                part = slice(start, start + _CHUNK)
                prompts = {}
                if points_N2 is not None:
                    prompts["input_points"] = self._tensor(points_N2[part, None])
                if boxes_N4 is not None:
                    prompts["input_boxes"] = self._tensor(boxes_N4[part])
                output = self._model(image_embeddings=seen, multimask_output=True, **prompts)
                maps_NMss = output.pred_masks[0].float().cpu().numpy()
                scores_NM = output.iou_scores[0].float().cpu().numpy()
                found += [
                    choose(maps, scores, window, target, self._config.choose, photo)
                    for maps, scores, target in zip(
                        maps_NMss, scores_NM, targets[part], strict=True
                    )
                ]
        return found

    def _tensor(self, array: Floats) -> torch.Tensor:
        """An array with a first dimension for the one photo, where the model is."""
        return torch.from_numpy(array[None]).to(self._device)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The precision that was asked for; too little memory is said in plain words."""
        bf16 = self._config.precision == "bf16"
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
                yield
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{self.name} does not fit into the GPU's memory: use a smaller model, or "
                "--device cpu"
            ) from error


def _hash_tensors(model: Any) -> str:
    """SHA-256 of a model's weights, by name, whatever files they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        solid = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(solid.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class OnnxTeacher:
    """SAM as two ONNX files, in the layout of its authors' export script.

    The encoder takes (1, 3, S, S) normalized pixels, the long side at S and zeros at the right and
    bottom, to embeddings. The decoder takes `image_embeddings`, `point_coords` (1, P, 2),
    `point_labels` (1, P), `mask_input` (1, 1, m, m), `has_mask_input` (1,) and `orig_im_size` (2,)
    to `iou_predictions` (1, M) and `low_res_masks` (1, M, s, s). Labels are 1 for a point, 2 and 3
    for the corners of a box, and -1 for the point that stands where there is no box.
    """

    INPUTS = (
        "image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input",
        "orig_im_size",
    )  # fmt: skip
    OUTPUTS = ("low_res_masks", "iou_predictions")

    def __init__(self, encoder: Path, decoder: Path, *, name: str, config: TeacherConfig) -> None:
        """Open two files.

        Raises:
            WeightsError: they are missing, damaged or of another layout.
        """
        self.name, self._config = name, config
        self._encoder, self._decoder = _session(encoder), _session(decoder)
        given, needed = self._encoder.get_inputs(), self._decoder.get_inputs()
        side = given[0].shape[-1] if len(given) == 1 and len(given[0].shape) == 4 else None
        if side is None or given[0].shape[1] != 3:
            raise WeightsError(f"{encoder} is no encoder of SAM: it must take (1, 3, side, side)")
        self._side = side if isinstance(side, int) else 1024  # a name stands for any size
        self._masks = [one.shape[-1] for one in needed if one.name == "mask_input"]
        lacking = {*self.INPUTS} - {one.name for one in needed}
        lacking |= {*self.OUTPUTS} - {one.name for one in self._decoder.get_outputs()}
        if lacking:
            raise WeightsError(f"{decoder} is no decoder of SAM: it has no {min(lacking)}")
        self.settings: dict[str, Any] = {
            "prompt": config.prompt,
            "choose": config.choose,
            "precision": "fp32",
            "input_size": self._side,
        }
        self.fingerprint = fingerprint(
            weights=[sha256_file(encoder), sha256_file(decoder)], **self.settings
        )

    @classmethod
    def load(cls, where: str, config: TeacherConfig) -> OnnxTeacher:
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
                raise WeightsError(f"there is no file {file}: check the path")
        if not files:
            raise WeightsError(
                f"onnx:{where} names no teacher: give a folder with encoder.onnx and decoder.onnx, "
                "or onnx:ENCODER,DECODER"
            )
        return cls(*files, name=f"onnx:{where}", config=config)

    def __call__(self, photo: Picture, targets: Sequence[Target]) -> list[Taught]:
        """One answer for each target; the photo is encoded once."""
        if not targets:
            return []
        shown = fit(photo, self._side)
        window = plane(shown, self._side)
        points_N2, boxes_N4 = prompt_arrays(targets, shown, self._config.prompt)
        name = self._encoder.get_inputs()[0].name
        seen = self._encoder.run(None, {name: shown.pixels})[0]
        found = []
        for index, target in enumerate(targets):
            coords, labels = _as_points(
                None if points_N2 is None else points_N2[index],
                None if boxes_N4 is None else boxes_N4[index],
            )
            side = self._masks[0] if isinstance(self._masks[0], int) else 4 * seen.shape[-1]
            maps, scores = self._decoder.run(
                list(self.OUTPUTS),
                {
                    "image_embeddings": seen,
                    "point_coords": coords,
                    "point_labels": labels,
                    "mask_input": np.zeros((1, 1, side, side), np.float32),
                    "has_mask_input": np.zeros(1, np.float32),
                    "orig_im_size": np.array(photo.shape[:2], np.float32),
                },
            )
            # Of four masks the first is the one for prompts that leave no doubt.
            several = slice(1, None) if maps.shape[1] == 4 else slice(None)
            found.append(
                choose(
                    maps[0, several], scores[0, several], window, target, self._config.choose, photo
                )
            )
        return found


def _as_points(point: Floats | None, box: Floats | None) -> tuple[Floats, Floats]:
    """A prompt as SAM's exported decoder takes it: coordinates (1, P, 2) and labels (1, P)."""
    coords = [] if point is None else [point]
    labels = [] if point is None else [1]
    if box is None:
        coords, labels = [*coords, np.zeros(2, np.float32)], [*labels, -1]
    else:
        coords, labels = [*coords, box[:2], box[2:]], [*labels, 2, 3]
    return np.stack(coords)[None].astype(np.float32), np.array([labels], np.float32)


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen private kinds
        raise WeightsError(f"{file} is no ONNX file that can be run: {error}") from error
