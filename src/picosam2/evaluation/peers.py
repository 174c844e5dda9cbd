"""Other models of the SAM family under our protocols, through `transformers` (extra `sam2`).

    picosam2 eval --weights sam2:FOLDER --protocol box ...

FOLDER is a local folder in Hugging Face's format (`config.json`, `model.safetensors`); nothing is
fetched and nothing is unpickled. SAM 2, EdgeTAM and the original SAM are known: see
`FAMILIES`. The picture is prepared here, not by the library's processor, which needs torchvision:

- SAM 2 (and EdgeTAM) see the whole picture squashed to a square of 1024 pixels;
- SAM sees its long side at 1024 pixels, padded with zeros at the right and bottom.

Both scale to 0..1 and take off ImageNet's mean and standard deviation, which is `images.MEAN` and
`images.STD`. Prompts are scaled the same way. The three masks of a click are ordered by the model's
own predicted IoU; a box gets one mask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2._files import sha256_file
from picosam2.errors import WeightsError, require
from picosam2.evaluation.protocols import Item
from picosam2.geometry import Window
from picosam2.images import normalize
from picosam2.masks import Region
from picosam2.predictor import Candidate
from picosam2.prompts import Box, Point

PREFIX = "sam2:"
"""What the name of a peer's weights begins with."""

_CHUNK = 32  # prompts in one pass of the mask decoder

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the network wants it: (1, 3, S, S) float32, and the way back."""

    pixels: Floats
    scale_x: float
    scale_y: float
    """Network pixels for one picture pixel."""


def squash(picture: Picture, side: int) -> Prepared:
    """SAM 2's way: the whole picture (H, W, 3) at `side` x `side`, its aspect not kept."""
    height, width = picture.shape[:2]
    resized = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
    return Prepared(normalize(resized[None]), side / width, side / height)


def fit(picture: Picture, side: int) -> Prepared:
    """SAM's way: the long side at `side` pixels, then zeros (after normalisation) to a square."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    new_width, new_height = int(width * scale + 0.5), int(height * scale + 0.5)
    resized = np.asarray(
        Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BILINEAR)
    )
    pixels = np.zeros((1, 3, side, side), np.float32)
    pixels[:, :, :new_height, :new_width] = normalize(resized[None])
    return Prepared(pixels, new_width / width, new_height / height)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model in `transformers` is loaded and shown a picture."""

    model: str
    prepare: Callable[[Picture, int], Prepared]


FAMILIES: dict[str, Family] = {
    "sam2": Family(model="Sam2Model", prepare=squash),
    # The published SAM 2 folders describe the video model, whose image part is a Sam2Model.
    "sam2_video": Family(model="Sam2Model", prepare=squash),
    "edgetam": Family(model="EdgeTamModel", prepare=squash),
    "edgetam_video": Family(model="EdgeTamModel", prepare=squash),
    "sam": Family(model="SamModel", prepare=fit),
}
"""Known model types, by the `model_type` of their configuration."""


class Peer:
    """A model of the SAM family as a `Subject`. The photo is encoded once for all its prompts."""

    def __init__(
        self,
        model: Any,
        family: Family,
        *,
        name: str = "peer",
        weights_sha256: str = "",
        bytes: int = 0,
    ) -> None:
        """Wrap a model of `transformers` that is loaded already.

        `name`, `weights_sha256` and `bytes`, of its weights file, are for the result file.
        """
        self.name, self.bytes = name, bytes
        self._torch = require("torch", "train")
        self._model = model.eval()
        self._family = family
        self._sha256 = weights_sha256
        self.side = input_side(model.config)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Peer:
        """Open a folder in Hugging Face's format.

        Raises:
            WeightsError: there is no such folder, or its model is not of a known family.
            MissingExtraError: without `transformers`.
        """
        folder = Path(folder)
        weights = sorted(folder.glob("*.safetensors"))
        model, family = load_model(folder)
        return cls(
            model,
            family,
            name=folder.resolve().name,
            weights_sha256=sha256_file(weights[0]),
            bytes=sum(path.stat().st_size for path in weights),
        )

    @property
    def weights_sha256(self) -> str:
        """Of the first weights file."""
        return self._sha256

    def facts(self) -> dict[str, Any]:
        """What a result file says of the weights, like `network.weights_facts`."""
        return {
            "name": self.name,
            "file": self.name,
            "bytes": self.bytes,
            "sha256": self._sha256,
            "runtime": "transformers",
            "precision": "fp32",
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
        }

    def boxes(self, picture: Picture, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box."""
        shown = self._family.prepare(picture, self.side)
        scale = np.array([shown.scale_x, shown.scale_y] * 2)
        corners = [np.array([box.x0, box.y0, box.x1, box.y1]) * scale for box in boxes]
        found = self._run(picture, shown, "input_boxes", corners, multimask=False)
        return [answers[0] for answers in found]

    def clicks(self, picture: Picture, points: Sequence[Point]) -> list[list[Candidate]]:
        """The model's masks of each click, the one that it believes in most first."""
        shown = self._family.prepare(picture, self.side)
        scale = np.array([shown.scale_x, shown.scale_y])
        places = [(np.array([point.x, point.y]) * scale)[None] for point in points]
        return self._run(picture, shown, "input_points", places, multimask=True)

    def windows(self, picture: Picture, items: Sequence[Item]) -> Floats:
        """The published comparison: the model sees the small crop as if it were a photo.

        Its prompt is the same click or box, moved into the crop.
        """
        side = geometry.CROP_SIZE
        found = np.zeros((len(items), side, side), np.float32)
        for index, item in enumerate(items):
            assert item.window is not None, "a published protocol gives every item a window"
            crop = geometry.crop(picture, item.window, side)
            box = item.prompt.box
            if box is not None:
                corners = item.window.to_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), side)
                answer = self.boxes(crop, [Box(*map(float, corners.ravel()))])[0]
            else:
                place = item.window.to_crop(np.array([[item.point.x, item.point.y]]), side)[0]
                answer = self.clicks(crop, [Point(float(place[0]), float(place[1]))])[0][0]
            found[index] = answer.region.logits
        return found

    def _run(
        self,
        picture: Picture,
        shown: Prepared,
        kind: str,
        prompts: Sequence[npt.NDArray[np.float64]],
        *,
        multimask: bool,
    ) -> list[list[Candidate]]:
        """Every prompt of one picture; `prompts` are in the network's pixels."""
        torch, height, width = self._torch, *picture.shape[:2]
        whole = Window(0, 0, width, height)
        found: list[list[Candidate]] = []
        with torch.inference_mode():
            # A list of feature maps for SAM 2, one map for SAM; `forward` takes either back.
            seen = self._model.get_image_embeddings(torch.from_numpy(shown.pixels))
            for start in range(0, len(prompts), _CHUNK):
                chunk = np.stack(prompts[start : start + _CHUNK]).astype(np.float32)
                output = self._model(
                    image_embeddings=seen,
                    multimask_output=multimask,
                    **{kind: torch.from_numpy(chunk)[None]},
                )
                maps = output.pred_masks[0].float()  # (N, M, s, s)
                scores = output.iou_scores[0].float().numpy()
                for logits, score in zip(maps, scores, strict=True):
                    full = self._on_picture(logits, shown, height, width)
                    order = np.argsort(-score, kind="stable")
                    found.append(
                        [
                            Candidate(
                                whole,
                                Region(0, 0, full[i]),
                                float(np.clip(score[i], 0, 1)),
                            )
                            for i in order
                        ]
                    )
        return found

    def _on_picture(self, logits: Any, shown: Prepared, height: int, width: int) -> Floats:
        """Low-resolution logits (M, s, s) on the picture's pixels: (M, height, width) float32.

        As the authors do: bilinear to the network's input size, the padding cut off, then bilinear
        to the picture.
        """
        resize = self._torch.nn.functional.interpolate
        options = {"mode": "bilinear", "align_corners": False}
        large = resize(logits[None], (self.side, self.side), **options)
        rows, columns = round(height * shown.scale_y), round(width * shown.scale_x)
        full = resize(large[..., :rows, :columns], (height, width), **options)
        found: Floats = full[0].numpy()
        return found


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
    # Errors are raised; the rest is chatter.
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
