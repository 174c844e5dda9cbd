"""Following objects through a video: the mask of each frame places the next frame's window.

One pass of the network a frame and object. What keeps it honest is color: the network always
finds something in its window, so a mask counts only if its pixels look like the object rather than
like its surroundings (a histogram ratio, as in "Color indexing", Swain and Ballard, IJCV 1991).
An object that is hidden or gone is reported as lost, and searched for where its colors are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry, masks
from picosam2.errors import ImageError, PromptError
from picosam2.geometry import Window
from picosam2.predictor import BOX_CHANNEL, Predictor
from picosam2.prompts import Box, Boxes, Points, Prompt, as_prompts

State = Literal["found", "lost"]

_LEVELS = 16  # of each color channel in a histogram
_SEARCH_SIDE = 160  # an object is searched for on a frame of this many pixels a side
_AGAIN_BELOW = 0.7  # IoU of where an object was expected and where it is
_MAX_EVIDENCE = 3.0
_TOUCHES = 0.03  # of a window: a mask so near to its edge is cut off by it
_SEARCH_SCALES = (1.0, 0.7, 1.4)  # it may come back nearer or farther


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracked:
    """One object in one frame.

    state: "found", or "lost" if the object is hidden, gone, or no longer told from its ground.
    mask: (H, W) bool; all False if lost.
    score: the predicted IoU of the mask, 0..1; 0 if lost.
    likeness: how far its pixels look like the object and unlike the ground, 0..1; 1 is as usual.
    window: the part of the frame that the network saw; None where it was not asked.
    """

    state: State
    mask: npt.NDArray[np.bool_]
    score: float
    likeness: float
    window: Window | None

    @property
    def found(self) -> bool:
        """Whether the object is in sight."""
        return self.state == "found"

    @property
    def area(self) -> int:
        """The number of pixels on the object."""
        return masks.area(self.mask)

    @property
    def box(self) -> Box | None:
        """The tight box around the mask, in pixels; None if lost."""
        corners = masks.bbox(self.mask)
        return None if corners is None else Box(*corners)


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """When a mask is believed, and how the window moves."""

    min_score: float = 0.3
    """A mask with a lower predicted IoU is not believed."""
    min_likeness: float = 0.55
    """Nor is one whose pixels look less like the object, as a share of how they usually do."""
    min_likeness_again: float = 0.75
    """The same for an object that was lost: a wrong start is worse than a late one."""
    min_area: float = 0.05
    """Less of the object in sight than this, as a share of its usual area, means lost."""
    small_part: float = 0.35
    """A share of the usual area below which a mask has to be as like as one that was lost."""
    momentum: float = 0.4
    """How much of an object's speed is the last frame's; the rest is this frame's."""
    resize: float = 0.5
    """How far the window's size follows the mask's within one frame, 0..1."""
    search: int = 2
    """How many places a frame are looked at for an object that is lost."""


LATE = TrackerConfig(momentum=0.8, resize=0.2)
"""For a `Follower`: its window is several frames late, and so many times goes the speed's error."""


class Tracker:
    """Follow objects through the frames of a video.

    >>> from picosam2 import sample
    >>> from picosam2.tasks.tracking import Tracker
    >>> tracker = Tracker()
    >>> tracker.start(sample(), points=[(353, 349)])[0].state
    'found'
    >>> [each.state for each in tracker.update(sample())]
    ['found']
    """

    def __init__(
        self, predictor: Predictor | None = None, config: TrackerConfig | None = None
    ) -> None:
        """Track with a predictor; by default with the shipped weights."""
        self.predictor = predictor or Predictor()
        self.config = config or TrackerConfig()
        self._objects: list[_Object] = []
        self._size: tuple[int, int] | None = None

    def start(
        self,
        frame: npt.NDArray[np.uint8],
        *,
        points: Points | None = None,
        boxes: Boxes | None = None,
        prompts: Sequence[Prompt] | None = None,
    ) -> list[Tracked]:
        """Point at the objects of the first frame; earlier objects are forgotten.

        Args:
            frame: (H, W, 3) uint8 RGB.
            points: (N, 2) of x, y pixels, one object each.
            boxes: (N, 4) of x0, y0, x1, y1 pixels, one object each.
            prompts: objects that need more than one point, or a box with points.

        Returns one result for each object: prompts first, then points, then boxes. An object
        whose first mask is empty is lost from the start.

        Raises `PromptError` for a prompt outside the frame or none, `ImageError` for a frame of
        another kind.
        """
        _check_frame(frame)
        all_prompts = list(prompts or ())
        if points is not None or boxes is not None or not all_prompts:
            all_prompts += as_prompts(points, boxes)
        results = self.predictor(frame, prompts=all_prompts)
        self._size = frame.shape[:2]
        self._objects, first = [], []
        for result in results:
            box = result.box
            tracked = _lost(frame, None)
            self._objects.append(_Object(self.config))
            if box is not None:
                window = self.predictor.box_window(box)
                self._objects[-1].begin(frame, result.mask, window)
                tracked = Tracked(
                    state="found",
                    mask=result.mask,
                    score=result.score,
                    likeness=1.0,
                    window=result.window,
                )
            first.append(tracked)
        return first

    def update(self, frame: npt.NDArray[np.uint8]) -> list[Tracked]:
        """The objects in the next frame, (H, W, 3) uint8 RGB of the same size, in their order.

        Raises `PromptError` before `start`, `ImageError` for a frame of another kind or size.
        """
        _check_frame(frame)
        if self._size is None:
            raise PromptError("the tracker follows nothing yet: call start with a prompt first")
        if frame.shape[:2] != self._size:
            raise ImageError(
                f"a video's frames have one size, not {self._size[1]}x{self._size[0]} and "
                f"{frame.shape[1]}x{frame.shape[0]}: start again on the new size"
            )
        wanted = [each.look(frame) for each in self._objects]
        sights = self._see(frame, wanted)
        # What has moved far within its window is looked at again, in the middle of a new one.
        again = [
            each.look_again(places, seen)
            for each, places, seen in zip(self._objects, wanted, sights, strict=True)
        ]
        for seen, more in zip(sights, self._see(frame, again), strict=True):
            seen += more
        return [each.settle(frame, seen) for each, seen in zip(self._objects, sights, strict=True)]

    def _see(
        self, frame: npt.NDArray[np.uint8], wanted: Sequence[Sequence[Box]]
    ) -> list[list[_Sight]]:
        """What the network says of some places for each object; all of them are one batch."""
        height, width = frame.shape[:2]
        windows = [self.predictor.box_window(box) for places in wanted for box in places]
        if not windows:
            return [[] for _ in wanted]
        info = self.predictor.runtime.info
        crops = np.stack([geometry.crop(frame, window, info.input_size) for window in windows])
        logits = self.predictor.runtime(crops)[:, min(BOX_CHANNEL, info.channels - 1)]
        scores = self.predictor.box_scores(logits, windows, height, width)
        if info.output_size != info.input_size:  # colors are compared pixel by pixel with logits
            crops = np.stack([geometry.crop(frame, window, info.output_size) for window in windows])
        seen = zip(crops, logits, windows, scores, strict=True)
        return [
            [each.judge(*next(seen)) for _ in places]
            for each, places in zip(self._objects, wanted, strict=True)
        ]


class Follower:
    """One object, followed through windows that someone else looks through, as a sensor does.

    A `Tracker` asks the network as often as it likes about the frame it has. A sensor looks through
    one window at a time and answers some frames later: `place` says where it should look, and `see`
    takes its answers. What is believed, and what is lost, is decided as in a `Tracker`.
    """

    def __init__(
        self,
        predictor: Predictor,
        frame: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.bool_],
        config: TrackerConfig | None = None,
    ) -> None:
        """Follow what `mask` (H, W) bool, not empty, covers in `frame` (H, W, 3) uint8 RGB."""
        corners = masks.bbox(mask)
        if corners is None:
            raise PromptError("there is nothing to follow in an empty mask: point again")
        self._predictor = predictor
        self._object = _Object(config or LATE)
        self._object.begin(frame, mask, predictor.box_window(Box(*corners)))
        self._turn = 0

    def place(self, frame: npt.NDArray[np.uint8], ahead: float = 0.0) -> Box | None:
        """Where to look for the object, given the frame it was last looked for in.

        `ahead` is how many frames will pass until the window is there. Of several places for an
        object that is lost, each call names the next; None if nowhere is better than another.
        """
        places = self._object.look(frame)
        if not places:
            return None
        self._turn += 1
        return _moved(places[self._turn % len(places)], *(ahead * self._object.speed))

    def see(
        self,
        frame: npt.NDArray[np.uint8],
        window: Window,
        logits: npt.NDArray[np.float32],
        elapsed: float = 1.0,
    ) -> Tracked:
        """The object in a frame, from the network's logits (K, S, S) of a window of it.

        `elapsed` is how many frames have passed since the last one that was seen.
        """
        height, width = frame.shape[:2]
        seen = logits[min(BOX_CHANNEL, len(logits) - 1)]
        score = self._predictor.box_scores(seen[None], [window], height, width)[0]
        crop = geometry.crop(frame, window, seen.shape[0])
        sight = self._object.judge(crop, seen, window, score)
        if sight.believed and sight.box is not None:
            whole = self._object.completed(sight.box, window)
            sight = replace(sight, box=whole)
        return self._object.settle(frame, [sight], elapsed)


@dataclass(frozen=True, eq=False)
class _Sight:
    """What the network saw in one window, and whether that is the object."""

    crop: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    window: Window
    box: Box | None
    score: float
    likeness: float
    believed: bool


class _Object:
    """One object that is followed: where it was, how it moves, what its colors are."""

    def __init__(self, config: TrackerConfig) -> None:
        self._config = config
        self._box: Box | None = None  # where the window is centered, and its size
        self._speed = np.zeros(2)  # pixels a frame
        self._area = 0.0  # usual, in pixels of the frame
        self._colors = _Colors()
        self._usual = np.ones(2)  # likeness
        self._missing = 0  # frames

    @property
    def speed(self) -> npt.NDArray[np.float64]:
        """How far it moves from one frame to the next, x and y, pixels."""
        return np.zeros(2) if self._missing else self._speed

    def begin(
        self, frame: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], window: Window
    ) -> None:
        """Learn the object from its first mask (H, W) bool, not empty."""
        corners = masks.bbox(mask)
        assert corners is not None
        self._box = Box(*corners)
        self._area = float(masks.area(mask))
        seen = geometry.crop(frame, window)
        covered = geometry.crop_mask(mask, window)
        # Some pixels are on it always, also where the mask is thin or scattered.
        on = covered >= min(0.5, covered.max() / 2)
        self._colors.learn(seen, on, _around(frame, self._box), first=True)
        self._usual = np.maximum(self._colors.likeness(seen, on), 1e-3)

    def look(self, frame: npt.NDArray[np.uint8]) -> list[Box]:
        """Where to look for the object in this frame, as boxes; none if it is not worth it."""
        if self._box is None:
            return []
        if not self._missing:
            return [self._nearby(frame, _moved(self._box, *self._speed))]
        return self._search(frame)

    def look_again(self, places: Sequence[Box], seen: Sequence[_Sight]) -> list[Box]:
        """Where to look a second time in the same frame: at a mask that is off its window."""
        if self._missing or not seen or seen[0].box is None or seen[0].likeness < 0.3:
            return []
        expected, box = places[0], seen[0].box
        if expected.iou(box) >= _AGAIN_BELOW:
            return []
        # What the window has cut off is not gone.
        half_w, half_h = max(expected.width, box.width) / 2, max(expected.height, box.height) / 2
        x, y = box.center.x, box.center.y
        return [Box(x - half_w, y - half_h, x + half_w, y + half_h)]

    def judge(
        self,
        crop: npt.NDArray[np.uint8],
        logits: npt.NDArray[np.float32],
        window: Window,
        score: np.float32,
    ) -> _Sight:
        """What a window's logits (S, S) say."""
        config = self._config
        own = logits > 0
        logits = logits + self._colors.evidence(crop)
        mask = _main_pieces(logits > 0)
        corners = masks.bbox(mask)
        if corners is None or not own.any():
            return _Sight(crop, logits, own, window, None, 0.0, 0.0, False)
        side = mask.shape[0]
        (x0, y0), (x1, y1) = window.to_image(np.array(corners, float).reshape(2, 2), side)
        area = mask.sum() * window.width * window.height / side**2
        both = self._colors.likeness(crop, own) / self._usual
        likeness = float(both.min())
        share = area / self._area
        # A small part of the object has few of its colors: it must be the more like them.
        sure = self._missing > 0 or share < config.small_part
        needed = config.min_likeness_again if sure else config.min_likeness
        smallest = 0.25 if self._missing else config.min_area
        believed = likeness >= needed and score >= config.min_score and smallest <= share <= 4
        # What the mask leaves out stays out when the logits are pasted.
        logits = np.where(mask, logits, np.minimum(logits, -1))
        return _Sight(
            crop,
            logits,
            mask,
            window,
            Box(x0, y0, x1, y1),
            float(score),
            min(likeness, 1.0),
            bool(believed),
        )

    def completed(self, box: Box, window: Window) -> Box:
        """A box that a window has cut off at one side, as large as the object was before.

        A sensor's window is late, and what moves runs out of it: the part that is left would make
        the object smaller and slower than it is.
        """
        if self._box is None or self._missing:
            return box
        across = _completed(box.x0, box.x1, window.x0, window.x1, self._box.width)
        down = _completed(box.y0, box.y1, window.y0, window.y1, self._box.height)
        return Box(across[0], down[0], across[1], down[1])

    def settle(
        self, frame: npt.NDArray[np.uint8], sights: Sequence[_Sight], elapsed: float = 1.0
    ) -> Tracked:
        """Choose among what was seen `elapsed` frames after the last, and move on to the next."""
        height, width = frame.shape[:2]
        best = max(sights, key=lambda s: (s.believed, s.likeness * s.score), default=None)
        if not self._missing and sights and sights[-1].believed:
            best = sights[-1]  # the second look, where there was one
        if best is not None and best.believed:
            region = geometry.paste_region(best.logits, best.window, height, width)
            mask = region.on_image(height, width)
            if mask.any():
                self._follow(frame, best, elapsed)
                return Tracked(
                    state="found",
                    mask=mask,
                    score=best.score,
                    likeness=best.likeness,
                    window=best.window,
                )
        self._missing += 1
        if self._box is not None:
            self._speed *= 0.9**elapsed
            self._box = _kept_near(_moved(self._box, *(elapsed * self._speed)), height, width)
        return _lost(frame, best.window if best is not None else None)

    def _follow(self, frame: npt.NDArray[np.uint8], sight: _Sight, elapsed: float) -> None:
        config, seen, last = self._config, sight.box, self._box
        assert seen is not None
        assert last is not None
        step = np.array([seen.center.x - last.center.x, seen.center.y - last.center.y]) / elapsed
        if self._missing:
            self._speed = np.zeros(2)
            self._box = seen
        else:
            self._speed = config.momentum * self._speed + (1 - config.momentum) * step
            half_w = (last.width + config.resize * (seen.width - last.width)) / 2
            half_h = (last.height + config.resize * (seen.height - last.height)) / 2
            x, y = seen.center.x, seen.center.y
            self._box = Box(x - half_w, y - half_h, x + half_w, y + half_h)
        self._missing = 0
        side = sight.mask.shape[0]
        area = float(sight.mask.sum()) * sight.window.width * sight.window.height / side**2
        if sight.likeness > 0.8:
            # What hides an object in part must not become what the object usually is.
            self._area += 0.1 * (area - self._area)
            self._colors.learn(sight.crop, sight.mask, _around(frame, seen))

    def _nearby(self, frame: npt.NDArray[np.uint8], box: Box) -> Box:
        """The box, moved and grown to where the object's colors are around it.

        The network takes a box at its word: it would cut off what has left the box. Of the places
        within half its size, and up to a fifth larger, the one that gains most by the object's
        colors and loses least by the ground's is taken (as mean shift does: Comaniciu, Ramesh and
        Meer, CVPR 2000). Without clear colors nothing gains, and the box stays.
        """
        cells, size = 48, 24
        around = Window(box.x0, box.y0, box.x1, box.y1).scaled(cells / size)
        gain = self._colors.shares(geometry.crop(frame, around, cells)) - 0.5
        total = np.zeros((cells + 1, cells + 1))
        np.cumsum(np.cumsum(gain, 0), 1, out=total[1:, 1:])
        best, place = -math.inf, (0, 0, size)
        for side in (size, size + 2, size + 4):
            inside = total[side:, side:] - total[:-side, side:]
            inside = inside - total[side:, :-side] + total[:-side, :-side]
            offset = np.arange(cells - side + 1) - (cells - side) / 2
            # Half a point a cell and a step: a tie is won by the place that was expected.
            far = np.hypot(offset[:, None], offset) + (side - size)
            worth = inside - 0.5 * far
            row, column = np.unravel_index(np.argmax(worth), worth.shape)
            if worth[row, column] > best:
                best, place = float(worth[row, column]), (int(column), int(row), side)
        left, top, side = place
        step_x, step_y = around.width / cells, around.height / cells
        x, y = around.x0 + left * step_x, around.y0 + top * step_y
        return Box(x, y, x + side * step_x, y + side * step_y)

    def _search(self, frame: npt.NDArray[np.uint8]) -> list[Box]:
        """The places that have most of the object's colors, best first."""
        assert self._box is not None
        step = _search_step(frame)
        share = self._colors.shares(frame[step // 2 :: step, step // 2 :: step])
        total = np.zeros((share.shape[0] + 1, share.shape[1] + 1))
        np.cumsum(np.cumsum(share, 0), 1, out=total[1:, 1:])
        places = []
        for scale in _SEARCH_SCALES:
            w = max(round(self._box.width * scale / step), 1)
            h = max(round(self._box.height * scale / step), 1)
            w, h = min(w, share.shape[1]), min(h, share.shape[0])
            inside = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
            # An object seen through its box fills more than half of it.
            row, column = np.unravel_index(np.argmax(inside), inside.shape)
            mean = inside[row, column] / (w * h)
            if mean >= 0.35 * self._usual[0]:
                x, y = float(column * step), float(row * step)
                places.append((mean, Box(x, y, x + w * step, y + h * step)))
        places.sort(key=lambda place: -place[0])
        return [box for _, box in places[: self._config.search]]


class _Colors:
    """How much a color belongs to the object rather than to what is around it."""

    def __init__(self) -> None:
        count = _LEVELS**3
        self._first = np.zeros(count)
        self._object = np.zeros(count)
        self._like = np.zeros(count)
        self._ground = np.zeros(count)
        self._share = np.zeros(count, np.float32)

    def learn(
        self,
        crop: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.bool_],
        around: npt.NDArray[np.uint8],
        *,
        first: bool = False,
    ) -> None:
        """Take in a crop (S, S, 3) uint8, the object's mask (S, S) bool in it, and other pixels.

        The mask is not empty; `around` is (N, 3) uint8, from the rest of the frame.
        """
        bins = _bins(crop)
        on = _histogram(bins[mask])
        parts = [_histogram(b) for b in (bins[~mask], _bins(around)) if b.size]
        off = sum(parts, np.zeros_like(on)) / max(len(parts), 1)
        if first:
            self._first = self._object = on
            self._ground = off
        else:
            self._object = self._object + 0.05 * (on - self._object)
            self._ground = self._ground + 0.1 * (off - self._ground)
        # Most of what the object looks like stays what it was at the start: no slow drift.
        self._like = 0.6 * self._first + 0.4 * self._object
        # A color that neither has shown is rather not the object.
        share = (self._like + 1e-5) / (self._like + self._ground + 4e-5)
        self._share = share.astype(np.float32)

    def evidence(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """What the colors of a crop (S, S, 3) uint8 add to its logits: (S, S) float32.

        The log odds of `shares`, within +-`_MAX_EVIDENCE`, smoothed over a few pixels.
        """
        share = self.shares(crop)
        odds = np.clip(np.log(share / (1 - share)), -_MAX_EVIDENCE, _MAX_EVIDENCE)
        smooth = Image.fromarray(odds.astype(np.float32)).resize(
            (crop.shape[1] // 3, crop.shape[0] // 3), Image.Resampling.BOX
        )
        evidence: npt.NDArray[np.float32] = np.asarray(
            smooth.resize((crop.shape[1], crop.shape[0]), Image.Resampling.BILINEAR)
        )
        return evidence

    def shares(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """For each pixel of (H, W, 3) uint8, the object's part in its color: (H, W), 0..1."""
        share: npt.NDArray[np.float32] = self._share[_bins(image)]
        return share

    def likeness(
        self, crop: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """How the pixels of a mask that is not empty look like the object: (2,), each 0..1.

        The mean of their `shares`, which says how little they look like the ground; and how alike
        the two histograms are (Bhattacharyya's coefficient), which a thing with only some of the
        object's colors does not pass.
        """
        bins = _bins(crop[mask])
        alike = np.sqrt(_histogram(bins) * self._like).sum()
        return np.array([self._share[bins].mean(), alike])


def _bins(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """The histogram bin of each pixel (..., 3) uint8: (...)."""
    levels = (pixels // (256 // _LEVELS)).astype(np.intp)
    bins: npt.NDArray[np.intp] = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[
        ..., 2
    ]
    return bins


def _histogram(bins: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """How often each bin occurs (`_LEVELS` ** 3,), its neighbors taken in; the sum is 1."""
    counts = np.bincount(bins.ravel(), minlength=_LEVELS**3).astype(float)
    cube = counts.reshape(_LEVELS, _LEVELS, _LEVELS)
    for axis in range(3):  # a little light more or less moves a color to the next bin
        padded = np.pad(cube, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
        low, high = padded.take(range(_LEVELS), axis), padded.take(range(2, _LEVELS + 2), axis)
        cube = 0.5 * cube + 0.25 * (low + high)
    histogram: npt.NDArray[np.float64] = cube.ravel() / max(float(cube.sum()), 1e-12)
    return histogram


def _around(frame: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
    """Pixels (N, 3) of the frame, from a coarse grid, without those in a box."""
    step = _search_step(frame)
    grid = frame[step // 2 :: step, step // 2 :: step]
    outside = np.ones(grid.shape[:2], np.bool_)
    left, top, right, bottom = (max(round(v / step), 0) for v in (box.x0, box.y0, box.x1, box.y1))
    outside[top:bottom, left:right] = False
    return grid[outside]


def _search_step(frame: npt.NDArray[np.uint8]) -> int:
    height, width = frame.shape[:2]
    return max(math.ceil(max(int(height), int(width)) / _SEARCH_SIDE), 1)


def _main_pieces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask without its crumbs, which would widen the next window: below a tenth of it."""
    area = int(np.count_nonzero(mask))
    return masks.remove_small(mask, area / 10) if area else mask


def _completed(
    low: float, high: float, first: float, last: float, size: float
) -> tuple[float, float]:
    """A span, made `size` long at the end where it touches that of a window; not if both do."""
    near = _TOUCHES * (last - first)
    cut_low, cut_high = low - first < near, last - high < near
    if cut_low == cut_high or high - low >= size:
        return low, high
    return (high - size, high) if cut_low else (low, low + size)


def _moved(box: Box, dx: float, dy: float) -> Box:
    return Box(box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy)


def _kept_near(box: Box, height: int, width: int) -> Box:
    """The box, moved so that its center is on the frame."""
    x, y = box.center.x, box.center.y
    return _moved(box, min(max(x, 0), width) - x, min(max(y, 0), height) - y)


def _lost(frame: npt.NDArray[np.uint8], window: Window | None) -> Tracked:
    return Tracked(
        state="lost",
        mask=np.zeros(frame.shape[:2], np.bool_),
        score=0.0,
        likeness=0.0,
        window=window,
    )


def _check_frame(frame: npt.NDArray[np.uint8]) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ImageError(f"a frame is an array (H, W, 3) of uint8, not {frame.dtype} {frame.shape}")
