"""Other models of the SAM family under our protocols.

    picosam2 eval --peer sam2:FOLDER --protocol box ...
    picosam2 eval --peer onnx:ENCODER,DECODER --protocol click ...

`sam.py` opens the models; nothing is fetched. Masks are resized as their authors do. The masks of a
click are ordered by the model's own predicted IoU; a box gets one mask.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.errors import require
from picosam2.evaluation.protocols import Item
from picosam2.evaluation.sam import Decoded, Encoded, Prepared, RgbImage, SamModel
from picosam2.geometry import Window
from picosam2.masks import Region
from picosam2.predictor import Candidate
from picosam2.prompts import Box, Point, Prompt

Floats = npt.NDArray[np.float32]


class Peer:
    """A model of the SAM family as a `ModelUnderTest`. An image is encoded once for its prompts."""

    def __init__(self, model: SamModel) -> None:
        self.model = model
        self._torch = require("torch", "train")
        self._encode_seconds = self._decode_seconds = 0.0
        self._images = self._prompts = 0
        self._newest: tuple[RgbImage, Encoded] | None = None

    @property
    def weights_sha256(self) -> str:
        """Of the weights, or of the encoder's file."""
        return str(self.model.facts["sha256"])

    def facts(self) -> dict[str, Any]:
        """The facts of the weights in a result file, like `network_facts.describe_weights`."""
        return self.model.facts

    def timing(self) -> dict[str, float]:
        """Mean milliseconds so far, of encoding an image and of decoding a prompt."""
        return {
            "encode_ms_per_image": 1000 * self._encode_seconds / max(self._images, 1),
            "decode_ms_per_prompt": 1000 * self._decode_seconds / max(self._prompts, 1),
        }

    def boxes(self, image: RgbImage, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box."""
        answers = self.answers(image, [Prompt(box=box) for box in boxes], several=False)
        return [candidates[0] for candidates in answers]

    def clicks(self, image: RgbImage, points: Sequence[Point]) -> list[list[Candidate]]:
        """The masks of each click, best first by the model's own score."""
        return self.answers(image, [Prompt((point,)) for point in points], several=True)

    def answers(
        self, image: RgbImage, prompts: Sequence[Prompt], *, several: bool
    ) -> list[list[Candidate]]:
        """The masks of each prompt on the whole image, best first by the model's own score.

        Args:
            image: (H, W, 3) RGB uint8.
            prompts: of any kind.
            several: return several masks for each prompt, or the one for unambiguous prompts.
        """
        height, width = image.shape[:2]
        encoded = self._encode(image)
        started = time.perf_counter()
        decoded = self.model.decode(encoded, prompts, several=several)
        answers = [self._candidates(each, encoded.prepared, height, width) for each in decoded]
        self._decode_seconds += time.perf_counter() - started
        self._prompts += len(prompts)
        return answers

    def _encode(self, image: RgbImage) -> Encoded:
        """The encoding of `image`; a user who goes on clicking at it pays for it once."""
        if self._newest is None or self._newest[0] is not image:
            started = time.perf_counter()
            self._newest = image, self.model.encode(image)
            self._encode_seconds += time.perf_counter() - started
            self._images += 1
        return self._newest[1]

    def windows(self, image: RgbImage, items: Sequence[Item]) -> Floats:
        """The published comparison: the model sees the small crop as if it were a whole image.

        Its prompt is the same click or box, moved into the crop.
        """
        side = geometry.CROP_SIZE
        logits = np.zeros((len(items), side, side), np.float32)
        for index, item in enumerate(items):
            assert item.window is not None, "a published protocol gives every item a window"
            crop = geometry.crop(image, item.window, side)
            box = item.prompt.box
            if box is not None:
                corners = item.window.to_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), side)
                answer = self.boxes(crop, [Box(*map(float, corners.ravel()))])[0]
            else:
                place = item.window.to_crop(np.array([[item.point.x, item.point.y]]), side)[0]
                answer = self.clicks(crop, [Point(float(place[0]), float(place[1]))])[0][0]
            logits[index] = answer.region.logits
        return logits

    def _candidates(
        self, decoded: Decoded, prepared: Prepared, height: int, width: int
    ) -> list[Candidate]:
        """The masks of one prompt on the image's pixels, best first."""
        scores = np.nan_to_num(decoded.scores_M, nan=0.0)
        full = self._on_image(decoded.maps_Mss, prepared, height, width)
        whole = Window(0, 0, width, height)
        return [
            Candidate(whole, Region(0, 0, full[index]), float(np.clip(scores[index], 0, 1)))
            for index in np.argsort(-scores, kind="stable")
        ]

    def _on_image(self, logits_Mss: Floats, prepared: Prepared, height: int, width: int) -> Floats:
        """Low-resolution logits (M, s, s) on the image's pixels: (M, height, width) float32.

        As the authors do: bilinear to the network's input size, the padding cut off, then bilinear
        to the image.
        """
        resize, side = self._torch.nn.functional.interpolate, self.model.side
        options = {"mode": "bilinear", "align_corners": False}
        maps = self._torch.from_numpy(np.ascontiguousarray(logits_Mss))[None]
        large = resize(maps, (side, side), **options)
        rows, columns = round(height * prepared.scale_y), round(width * prepared.scale_x)
        full: Floats = resize(large[..., :rows, :columns], (height, width), **options)[0].numpy()
        return full
