"""Tiny data sets in COCO's format, stores made of them, and recipes that train in a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from picosam2 import masks
from picosam2.data.store import SourceFiles, Store, StoreConfig, prepare
from picosam2.distillation import cache
from picosam2.models.network import ModelConfig
from picosam2.training.config import Recipe, TrainConfig

HEIGHT, WIDTH = 72, 96
SMALL_STORE = StoreConfig(context=64, validation=0.3, photos_per_shard=3)


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of a bright disc on dark texture, and the disc's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    cx, cy = rng.uniform(0.3, 0.7, 2) * (width, height)
    mask = (x - cx) ** 2 + (y - cy) ** 2 < rng.uniform(10, 22) ** 2
    coarse = rng.integers(0, 90, (6, 8, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    image = ground.copy()
    image[mask] = rng.integers(140, 256, 3)
    return image, mask


def write_coco(
    folder: Path, count: int = 8, *, start: int = 0, name: str = "shapes"
) -> SourceFiles:
    """`count` images of one disc each with an annotation file; PNG, so that pixels are exact."""
    images = folder / f"{name}-images"
    images.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    for number in range(start, start + count):
        image, mask = scene(number)
        file = f"{number:03d}.png"
        Image.fromarray(image).save(images / file)
        document["images"].append(
            {"id": number + 1, "file_name": file, "height": HEIGHT, "width": WIDTH}
        )
        document["annotations"].append(annotation(number + 101, number + 1, mask))
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return SourceFiles(annotations=path, images=images, name=name)


def annotation(number: int, image: int, mask: np.ndarray) -> dict[str, Any]:
    """A COCO annotation of `mask`."""
    x0, y0, x1, y1 = masks.bbox(mask) or (0, 0, 1, 1)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": masks.rle_encode(mask),
    }


def make_store(folder: Path, count: int = 8, config: StoreConfig = SMALL_STORE) -> Store:
    """A store of `count` images below `folder`."""
    prepare([write_coco(folder, count)], folder / "store", config, workers=1)
    return Store(folder / "store")


class KnowsTheTruth:
    """Stands for a teacher: its fingerprint is its name, its answers are the true masks."""

    def __init__(self, name: str = "truth", sure: float = 6.0) -> None:
        self.name, self.fingerprint, self.settings, self.sure = name, name, {}, sure


def make_cache(folder: Path, store: Store, teacher: KnowsTheTruth) -> cache.TeacherCache:
    """What the teacher says of the store: logits of +-`sure`, half of its answers disagreeing."""
    cache.claim(folder, cache.make_plan(teacher, store, 0.5), store)
    start = 0
    for index, end in enumerate(store.ends.tolist()):
        mask = store.gather(np.arange(start, end))[..., 3] > 127
        logits = cache.quantize(np.where(mask, teacher.sure, -teacher.sure).astype(np.float32))
        records = np.zeros(end - start, cache.RECORD)
        records["predicted_iou"], records["valid"] = 0.9, True
        records["agrees"] = np.arange(start, end) % 2 == 0
        records["iou"] = np.where(records["agrees"], 0.8, 0.1)
        cache.write_shard(folder, index, logits, records, {})
        start = end
    return cache.TeacherCache(folder, store)


def tiny_recipe(**train: Any) -> Recipe:
    """A network of a few thousand parameters on 32-pixel crops; `train` changes its settings."""
    recipe = Recipe(
        model=ModelConfig(widths=(6, 8), bottleneck=10, decoder=(8, 6), input_size=32, logits=2),
        train=TrainConfig(
            samples=48, batch=8, lr=3e-3, warmup=2, log_every=1, save_every=2, validate_every=0,
            precision="fp32",
        ),
    )  # fmt: skip
    return replace(recipe, train=replace(recipe.train, **train))


def guided_config() -> ModelConfig:
    """The smallest network that takes guidance: its encoder's widths are given."""
    return ModelConfig(
        encoder="efficientnet-lite0", widths=(16, 24, 40, 112), bottleneck=8, decoder=(8, 8, 8, 8),
        input_size=64, logits=2, guidance=True,
    )  # fmt: skip
