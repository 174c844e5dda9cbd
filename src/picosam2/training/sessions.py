"""Simulated users: an object, a first answer of the network itself, then clicks on its errors.

A *session* is one object with a first prompt and some corrections. Each pass of the network on it
is one training sample, and the answer that the training step gave is what the next click corrects,
so no pass is spent on making starts. The sessions of a batch are at different passes; two halves
take turns, so that one can be prepared while the network computes on the other.

Windows, planes and what becomes of an answer are those of prediction (`geometry`, `guidance`,
`refine`). All draws of a step are a pure function of (seed, step, slot); the clicks follow the
network's answers as well.

Shape suffixes: B slots of a half, S the crop's side, L the logits' side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picosam2 import geometry, guidance, masks
from picosam2.data.augment import AugmentConfig, Draws, _normalise, _photometric, _Uniforms
from picosam2.data.image_store import ImageStore
from picosam2.data.store import BOX, CLICK
from picosam2.errors import ConfigError
from picosam2.geometry import CLICK_HALVES, Window
from picosam2.prompts import Box, Point
from picosam2.refine import is_settled, obeyed, union

Mask = npt.NDArray[np.bool_]

_TRIED = 20  # objects drawn for a session before giving up; a few masks are of one pixel


@dataclass(frozen=True, kw_only=True)
class GuidedConfig:
    """The kinds of sessions and their shares, between 0 and 1."""

    box: float = 0.48
    """Share of the sessions that start with a box."""
    click: float = 0.37
    """Share that starts with a click, in one of the windows that prediction tries; the others start
    from a mask that is not the network's, or from clicks alone."""
    box_passes: tuple[float, ...] = (0.6, 0.1, 0.1, 0.1, 0.1)
    """Shares of 0, 1, 2, ... corrections after a box."""
    click_passes: tuple[float, ...] = (0.45, 0.15, 0.16, 0.14, 0.1)
    """The same after a click."""
    mask_passes: tuple[float, ...] = (0.0, 0.35, 0.3, 0.2, 0.15)
    """The same for sessions that start from a mask or from clicks alone."""
    exact: float = 0.6
    """Share of the boxes that are exact."""
    jitter: float = 0.1
    """Each edge of the others moves by up to this share of its side."""
    again: float = 0.3
    """Share of the sessions after a click whose first guided pass has no second click: the window
    follows the mask and the plane holds the first click."""
    astray: float = 0.0
    """Share of the sessions after a click that start in a window of another scale than the object's
    and are then corrected, as when prediction takes the whole for the part that was meant. What
    the network answers before the first correction only makes the mask to correct."""
    wider: float = 1.0
    """The window of such a pass is up to this many times as large, so that it can find that the
    object is larger than the mask."""
    forget: float = 0.08
    """Share of the guided passes that are shown the clicks without the mask so far."""
    centre: float = 0.35
    """Share of the first clicks at the object's center point; the others are anywhere in it."""
    teacher: float = 0.5
    """Weight of the first weights' own answer in unguided passes with a box or a center click."""
    near: float = 8.0
    """Further weight of a pixel at the newest click in the cross-entropy."""
    obey: float = 60.0
    """Further weight of a pixel on the disk of any click."""
    by_image: tuple[str, ...] = ()
    """Sources of which an image counts as much as an object elsewhere, however many it has."""
    rate: float = 5.0
    """Learning rate of the guidance branch, as a multiple of the others'."""

    def __post_init__(self) -> None:
        if min(self.box, self.click) < 0 or self.box + self.click > 1:
            raise ConfigError("`box` and `click` are shares: together at most 1")
        for name in ("box_passes", "click_passes", "mask_passes"):
            shares = getattr(self, name)
            if not shares or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
                raise ConfigError(f"the shares of `{name}` must add up to 1")
        for name in ("exact", "again", "astray", "forget", "centre"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1")
        if not (0 <= self.jitter < 0.5 and 1 <= self.wider <= 4):
            raise ConfigError("`jitter` must be below 0.5, and `wider` from 1 to 4")
        if min(self.teacher, self.near, self.obey, self.rate) < 0:
            raise ConfigError("`teacher`, `near`, `obey` and `rate` must not be negative")


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidedBatch:
    """The inputs and weights of one training step."""

    image_B3SS: Tensor
    """Normalised crops, float32."""
    guidance_B3SS: Tensor
    """float32, 0..1; zeros where a pass has none."""
    target_BLL: Tensor
    """Share of each logit's cell that the object covers, float32, 0..1."""
    weight_BLL: Tensor
    """Weights of the cross-entropy, float32, at least 1."""
    kind_B: Tensor
    """The logit channel, int64."""
    taught_B: Tensor
    """Whether the starting weights' answer counts too, bool."""
    guided_B: Tensor
    """Whether there is any guidance, bool."""
    value_B: Tensor
    """Weight of the sample, float32."""


@dataclass(eq=False)
class Session:
    """One object, its prompts and its mask so far."""

    image: npt.NDArray[np.uint8]
    truth: Mask
    flip: bool
    left: int
    """Passes to come, this one included."""
    kind: int = BOX
    window: Window = field(default_factory=lambda: Window(0, 0, 1, 1))
    """Of the current pass."""
    guided: bool = False
    taught: bool = False
    value: float = 1.0
    again: bool = False
    """Whether the next pass has no new click."""
    astray: bool = False
    """Whether it started in a window of another scale and was not corrected yet."""
    box: Box | None = None
    points: list[Point] = field(default_factory=list)
    newest: Point | None = None
    mask: npt.NDArray[np.uint8] | None = None
    """The mask so far, 255 times its probability."""
    binary_mask: Mask | None = None
    """The mask so far, (H, W) bool."""
    show_mask: bool = True
    is_foreign: bool = False
    """Whether it started from a mask that is not the network's."""
    settled: npt.NDArray[np.float32] | None = None
    """The plane of the mask so far, (S, S), if it counts in the answer of the current pass."""


class Sessions:
    """The sessions of both halves of a training."""

    def __init__(
        self,
        store: ImageStore,
        config: GuidedConfig,
        augment: AugmentConfig,
        *,
        size: int,
        output: int,
        batch: int,
        seed: int,
        sources: dict[str, float] | None = None,
        by_image: Sequence[str] = (),
    ) -> None:
        """Prepare drawing from the training part of `store`.

        Args:
            size: side of the crops; `output` of the logits.
            batch: slots of one half.
            sources: how often an object of a source is drawn, against 1 for those not named.
            by_image: sources of which an image counts, however many objects it has.

        Raises:
            ConfigError: an unknown source, or nothing to draw.
        """
        known = store.source_names
        if unknown := (set(sources or {}) | set(by_image)) - set(known):
            raise ConfigError(
                f"the store has no source {min(unknown)!r}: it has {', '.join(known)}"
            )
        images = store.images[store.objects["image"]]
        weights = np.array([(sources or {}).get(name, 1.0) for name in known])[images["source"]]
        counts = np.bincount(store.objects["image"], minlength=len(store.images))
        single = np.isin(images["source"], [known.index(name) for name in by_image])
        weights = np.where(single, weights / counts[store.objects["image"]], weights)
        weights = weights * ~images["validation"]
        self._rows = np.flatnonzero(weights > 0)
        if not len(self._rows):
            raise ConfigError("there is nothing in the store to train on: check `sources`")
        self._cumulative = np.cumsum(weights[self._rows])
        self._neighbors = _by_image(store)
        self._store, self._config, self._augment = store, config, augment
        self._size, self._output, self._batch, self._seed = size, output, batch, seed
        self._halves: list[list[Session | None]] = [[None] * batch for _ in range(2)]

    def batch(self, step: int) -> GuidedBatch:
        """The network's input at `step`: the next pass of the half whose turn it is."""
        slots = self._halves[step % 2]
        crops = np.empty((self._batch, self._size, self._size, 3), np.uint8)
        planes = np.empty((self._batch, 3, self._size, self._size), np.float32)
        targets = np.empty((self._batch, self._output, self._output), np.float32)
        weights = np.empty_like(targets)
        for slot in range(self._batch):
            rng = np.random.default_rng((self._seed, step, slot))
            session = slots[slot]
            if session is None or session.left < 1 or not self._go_on(session, rng):
                session = self._start(rng)
            slots[slot] = session
            self._draw(session, crops[slot], planes[slot], targets[slot], weights[slot])
        sessions = [session for session in slots if session is not None]
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        draws = Draws.of(self._batch, generator)
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
        image = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        image = _photometric(image, _Uniforms(draws), draws.tile_3TT, self._augment)
        return GuidedBatch(
            image_B3SS=_normalise(image),
            guidance_B3SS=torch.from_numpy(planes),
            target_BLL=torch.from_numpy(targets),
            weight_BLL=torch.from_numpy(weights),
            kind_B=torch.tensor([session.kind for session in sessions]),
            taught_B=torch.tensor([session.taught for session in sessions]),
            guided_B=torch.tensor([session.guided for session in sessions]),
            value_B=torch.tensor([session.value for session in sessions]),
        )

    def answer(self, step: int, logits_BLL: npt.NDArray[np.float32]) -> None:
        """Take the network's answer at `step`, which the next clicks correct."""
        for session, logits in zip(self._halves[step % 2], logits_BLL, strict=True):
            assert session is not None
            session.left -= 1
            if session.left < 1:
                continue
            seen = np.ascontiguousarray(logits[:, ::-1]) if session.flip else logits
            height, width = session.truth.shape
            if session.settled is not None:
                newest = session.points[-1]
                seen = guidance.settled(seen, session.settled, session.window, newest)
            region = geometry.paste_region(seen, session.window, height, width)
            if session.guided:
                region = obeyed(region, session.window, session.points)
            session.mask = guidance.whole(region, height, width)
            session.binary_mask = region.on_image(height, width)

    # -- starting ----------------------------------------------------------------------------

    def _start(self, rng: np.random.Generator) -> Session:
        """A new session with its first pass set up."""
        config = self._config
        for _ in range(_TRIED):
            place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], "right")
            row = int(self._rows[min(int(place), len(self._rows) - 1)])
            truth = self._store.mask(row)
            if truth.sum() >= 12:
                break
        image = self._store.image(int(self._store.objects["image"][row]))
        session = Session(image, truth, flip=bool(rng.random() < 0.5), left=1)
        draw = rng.random()
        if draw < config.box:
            session.left += _choose(rng, config.box_passes)
            session.box = self._given_box(truth, rng, session)
            session.window = self._window(session.box)
        elif draw < config.box + config.click:
            session.left += _choose(rng, config.click_passes)
            session.astray = config.astray > 0 and bool(rng.random() < config.astray)
            self._first_click(session, rng)
        else:
            session.left = _choose(rng, config.mask_passes)
            self._foreign_start(session, row, rng)
        return session

    def _given_box(self, truth: Mask, rng: np.random.Generator, session: Session) -> Box:
        box = _bounds(truth)
        assert box is not None
        session.taught = True
        if rng.random() < self._config.exact:
            return box
        amount = rng.random() * self._config.jitter
        shift = rng.uniform(-amount, amount, 4) * (box.width, box.height, box.width, box.height)
        return Box(box.x0 + shift[0], box.y0 + shift[1], box.x1 + shift[2], box.y1 + shift[3])

    def _first_click(self, session: Session, rng: np.random.Generator) -> None:
        """A click anywhere on the object, in one of the windows that prediction tries."""
        center = rng.random() < self._config.centre
        point = masks.center_point(session.truth) if center else _inside(session.truth, rng)
        box = _bounds(session.truth)
        assert box is not None
        reach = max(point.x - box.x0, box.x1 - point.x, point.y - box.y0, box.y1 - point.y, 1.0)
        halves = np.array(CLICK_HALVES) * max(session.truth.shape)
        octaves = np.log2(halves / (1.5 * reach))
        off = np.abs(octaves)
        shares = np.exp(-0.5 * (np.maximum(off - 0.6, 0) / 0.9) ** 2) + 0.04
        if session.astray:  # too large a window more often than too small a one
            shares = np.exp(-0.5 * ((off - 1.6) / 0.8) ** 2) * np.where(octaves > 0, 1, 0.4)
            shares = shares * (off > 0.8) + 1e-9
        index = _choose(rng, shares / shares.sum())
        session.kind, session.points = CLICK, [point]
        session.window = geometry.point_window(point, float(halves[index]))
        session.taught = bool(center and off[index] < 1.2)
        session.value = 1.0 if off[index] < 1.6 else 0.5
        session.again = bool(rng.random() < self._config.again)
        if session.astray:
            session.taught, session.value = False, 0.0
            session.left = max(session.left, 2) + session.again

    def _foreign_start(self, session: Session, row: int, rng: np.random.Generator) -> None:
        """A mask that is not the network's own, or clicks alone."""
        truth = session.truth
        draw = rng.random()
        if draw < 0.25:  # clicks alone
            session.points = [_inside(truth, rng) for _ in range(rng.integers(1, 4))]
            if rng.random() < 0.4 and (off := _outside(truth, rng)) is not None:
                session.points.append(off)
            session.newest = session.points[-1]
            box = _bounds(truth)
            if len(session.points) > 1 and rng.random() < 0.5:
                box = guidance.following_box(None, session.points, *truth.shape) or box
                stretch = 1.0
            else:  # users' and trackers' windows vary
                stretch = math.exp(rng.uniform(-0.5, 0.7))
            assert box is not None
            session.guided = True
            session.window = self._window(box).scaled(stretch)
            return
        session.is_foreign = True
        if draw < 0.55:  # what a tracker has: the mask of a moment ago
            mask = _moved(truth, rng)
        elif draw < 0.75:
            others = [other for other in self._neighbors.get(row, ()) if other != row]
            other = self._store.mask(int(rng.choice(others))) if others else _moved(truth, rng)
            mask = other | truth if rng.random() < 0.4 else other
        else:
            mask = _corrupted(truth, rng)
        session.binary_mask = mask
        session.mask = mask.view(np.uint8) * np.uint8(255)
        if rng.random() < 0.3:
            soft = cv2.GaussianBlur(session.mask, (0, 0), 0.5 + 0.01 * max(truth.shape))
            session.mask = soft.astype(np.uint8)
        # Without a click only the mask marks the object, so it has to be near it.
        session.again = draw < 0.55 or (masks.iou(mask, truth) > 0.6 and rng.random() < 0.4)
        if not self._go_on(session, rng):
            session.again = True
            self._go_on(session, rng)

    # -- going on ----------------------------------------------------------------------------

    def _go_on(self, session: Session, rng: np.random.Generator) -> bool:
        """Set up the next pass from the last answer; False if there is nothing left to correct."""
        height, width = session.truth.shape
        assert session.binary_mask is not None
        wider = 1.0
        if session.again:
            session.again = False
            if session.kind == CLICK and self._config.wider > 1:
                wider = math.exp(rng.uniform(0, math.log(self._config.wider)))
            session.newest = session.points[-1] if session.points else None
        else:
            place = _error(session.truth, session.binary_mask, rng)
            if place is None:
                return False
            session.points.append(place)
            session.newest = place
            session.astray = False
        box = guidance.following_box(
            union(_bounds(session.binary_mask), session.box), session.points, height, width
        )
        if box is None:
            return False
        session.kind, session.guided, session.taught = BOX, True, False
        session.value = 0.0 if session.astray else 1.0
        session.show_mask = bool(rng.random() >= self._config.forget) or not session.points
        session.window = self._window(box, wider * rng.uniform(0.97, 1.08))
        return True

    def _window(self, box: Box, larger: float = 1.0) -> Window:
        """The window of a box by the rules of prediction, or so much larger."""
        rules = self._augment
        growth = max(rules.box_growth * larger, 1.0)
        return geometry.box_window(box, growth=growth, max_aspect=rules.box_max_aspect)

    def _draw(
        self,
        session: Session,
        crop: npt.NDArray[np.uint8],
        planes: npt.NDArray[np.float32],
        target: npt.NDArray[np.float32],
        weight: npt.NDArray[np.float32],
    ) -> None:
        """Write the current pass, on the crop's grid, into a batch's arrays."""
        turn = slice(None, None, -1 if session.flip else 1)
        crop[:, turn] = geometry.crop(session.image, session.window, self._size)
        covered = geometry.crop_mask(session.truth, session.window, self._output)
        target[:, turn] = covered
        weight[...] = 1
        planes[...] = 0
        session.settled = None
        if not session.guided:
            return
        mask = session.mask if session.show_mask else None
        shown = guidance.planes(session.window, self._size, mask, session.points)
        planes[:, :, turn] = shown
        counts = session.is_foreign or is_settled(session.points, session.box)
        if counts and session.points and mask is not None and mask.max() > 127:
            session.settled = shown[0]
        side = self._size // self._output
        disks = shown[1:].max(0)[side // 2 :: side, side // 2 :: side]
        heavy = 1 + self._config.obey * disks
        if session.newest is not None:
            place = np.array([[session.newest.x, session.newest.y]])
            x, y = session.window.to_crop(place, self._output)[0]
            cells = np.arange(self._output) + 0.5
            sigma = 0.06 * self._output
            across, down = (np.exp(-0.5 * ((cells - at) / sigma) ** 2) for at in (x, y))
            heavy = heavy + self._config.near * down[:, None] * across[None, :]
        weight[:, turn] = heavy


def _by_image(store: ImageStore) -> dict[int, list[int]]:
    """For each object the objects of its image, where there are several."""
    order = np.argsort(store.objects["image"], kind="stable")
    ends = np.append(np.flatnonzero(np.diff(store.objects["image"][order])) + 1, len(order))
    rows_by_image: dict[int, list[int]] = {}
    start = 0
    for end in ends.tolist():
        rows = order[start:end].tolist()
        if len(rows) > 1:
            rows_by_image |= dict.fromkeys(rows, rows)
        start = end
    return rows_by_image


def _choose(rng: np.random.Generator, shares: Sequence[float] | npt.NDArray[np.floating]) -> int:
    place = int(np.searchsorted(np.cumsum(shares), rng.random(), "right"))
    return min(place, len(shares) - 1)


def _bounds(mask: Mask) -> Box | None:
    bounds = masks.bbox(mask)
    return None if bounds is None else Box(*bounds)


def _depth(mask: Mask) -> npt.NDArray[np.float32]:
    """The chessboard distance of each pixel to what is not in `mask` (the border is not)."""
    padded = np.pad(mask.view(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1].astype(np.float32, copy=False)


def _pixel(index: int, width: int, positive: bool) -> Point:
    return Point(index % width + 0.5, index // width + 0.5, positive)


def _inside(mask: Mask, rng: np.random.Generator) -> Point:
    """A point drawn uniformly from the mask, without its rim where it is thick enough."""
    box = _bounds(mask)
    assert box is not None
    depth = _depth(mask)
    rim = min(0.1 * min(box.width, box.height), 0.5 * float(depth.max()))
    return _pixel(int(rng.choice(np.flatnonzero(depth > rim))), mask.shape[1], True)


def _outside(mask: Mask, rng: np.random.Generator) -> Point | None:
    """A negative point near the mask but off it."""
    box = _bounds(mask)
    assert box is not None
    margin = 0.3 * max(box.width, box.height) + 3
    near = np.zeros(mask.shape, np.bool_)
    y0, x0 = max(int(box.y0 - margin), 0), max(int(box.x0 - margin), 0)
    near[y0 : int(box.y1 + margin), x0 : int(box.x1 + margin)] = True
    depth = _depth(near & ~mask)
    places = np.flatnonzero(depth > min(3.0, float(depth.max()) / 2))
    return _pixel(int(rng.choice(places)), mask.shape[1], False) if len(places) else None


def _error(truth: Mask, mask: Mask, rng: np.random.Generator) -> Point | None:
    """The next click: half of them at the deepest error, half somewhere inside an error."""
    missed, extra = _depth(truth & ~mask), _depth(mask & ~truth)
    deepest = float(missed.max()), float(extra.max())
    if max(deepest) < 1.5:  # lines a pixel wide: nobody clicks at those
        return None
    width = truth.shape[1]
    if rng.random() < 0.5:
        positive = deepest[0] >= deepest[1]
        depth = missed if positive else extra
        places = np.flatnonzero(depth >= depth.max() - 0.5)
        # The one nearest to their middle, as in the measurement.
        rows, columns = places // width, places % width
        off = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
        return _pixel(int(places[off.argmin()]), width, positive)
    positive = bool(rng.random() < deepest[0] / (deepest[0] + deepest[1]))
    depth = missed if positive else extra
    places = np.flatnonzero(depth >= max(0.35 * float(depth.max()), 1.0))
    return _pixel(int(rng.choice(places)), width, positive)


def _moved(truth: Mask, rng: np.random.Generator) -> Mask:
    """The mask as it was a moment ago: shifted, scaled, turned a little."""
    box = _bounds(truth)
    assert box is not None
    center = box.center
    matrix = cv2.getRotationMatrix2D(
        (center.x, center.y), rng.normal(0, 6), math.exp(rng.normal(0, 0.1))
    )
    shift = rng.normal(0, 0.08, 2) * (box.width, box.height)
    matrix = np.column_stack((matrix[:, :2], matrix[:, 2] + shift))
    size = truth.shape[1], truth.shape[0]
    moved = cv2.warpAffine(truth.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return moved.astype(np.bool_) if moved.any() else truth


def _corrupted(truth: Mask, rng: np.random.Generator) -> Mask:
    """The truth with a part cut off, a blob added, or its outline too far in or out."""
    box = _bounds(truth)
    assert box is not None
    mask = truth.copy()
    height, width = truth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    for _ in range(int(rng.integers(1, 3))):
        draw = rng.random()
        if draw < 0.35:  # one side of a line
            angle = rng.uniform(0, 2 * math.pi)
            x = rng.uniform(box.x0, box.x1)
            y = rng.uniform(box.y0, box.y1)
            mask &= (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle) > 0
        elif draw < 0.7:  # an ellipse, added or taken away
            x, y = rng.uniform(box.x0, box.x1), rng.uniform(box.y0, box.y1)
            a, b = rng.uniform(0.1, 0.45, 2) * (box.width, box.height)
            blob = ((columns - x) / max(a, 1)) ** 2 + ((rows - y) / max(b, 1)) ** 2 < 1
            mask = mask | blob if rng.random() < 0.6 else mask & ~blob
        else:
            side = 1 + 2 * int(rng.uniform(0.01, 0.08) * min(box.width, box.height))
            kernel = np.ones((side, side), np.uint8)
            change = cv2.dilate if rng.random() < 0.5 else cv2.erode
            mask = change(mask.view(np.uint8), kernel).astype(np.bool_)
    return mask if mask.any() else truth.copy()
