"""Tools that read and write sets of labeled images: what they read of ours, and we of theirs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picosam2 import Predictor, sample
from picosam2.cli.main import run
from picosam2.io import formats
from picosam2.io.formats.coco import read_coco_file, segmentation_mask
from picosam2.io.sample_image import sample_bytes, sample_objects
from picosam2.masks import rle_decode
from picosam2.tasks.batch import BatchSegmenter

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages themselves

BOXES = [[each.box.x0, each.box.y0, each.box.x1, each.box.y1] for each in sample_objects()[:2]]


def imported(name: str) -> Any:
    """A package, or a skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def masks() -> list[np.ndarray]:
    return [each.mask for each in Predictor("default-int8")(sample(), boxes=BOXES)]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """The file that `picosam2 segment --format coco` writes, and the image beside it."""
    (tmp_path / "apples.jpg").write_bytes(sample_bytes())
    out = tmp_path / "coco.json"
    words = ["segment", str(tmp_path / "apples.jpg"), "--format", "coco", "--out", str(out)]
    words += [word for box in BOXES for word in ("--box", ",".join(map(str, box)))]
    assert run([*words, "--weights", "default-int8"]) == 0
    return out


def ours(path: Path) -> list[np.ndarray]:
    """The masks of a COCO file by our own reader."""
    read = read_coco_file(path)
    height, width = sample().shape[:2]
    masks = []
    for annotation in read.annotations:
        assert annotation.segmentation is not None
        masks.append(segmentation_mask(annotation.segmentation, height, width))
    return masks


# --- supervision --------------------------------------------------------------------------------


def test_supervision_reads_our_coco_file_and_we_read_its(
    coco: Path, masks: list[np.ndarray], tmp_path: Path
) -> None:
    sv = imported("supervision")
    dataset = sv.DetectionDataset.from_coco(str(coco.parent), str(coco), force_masks=True)
    ((_, image, detections),) = list(dataset)
    assert image.shape == sample().shape
    np.testing.assert_array_equal(detections.mask, np.stack(masks))
    back = tmp_path / "back.json"
    dataset.as_coco(annotations_path=str(back))
    # It draws outlines through pixel centers, and so takes what its own reader would fill.
    for mask, expected in zip(ours(back), masks, strict=True):
        assert (mask & expected).sum() / (mask | expected).sum() > 0.9


def test_supervision_s_boxes_are_prompts_and_masks_come_back(masks: list[np.ndarray]) -> None:
    sv = imported("supervision")
    detections = sv.Detections(xyxy=np.array(BOXES, np.float32))
    results = Predictor("default-int8")(sample(), boxes=detections.xyxy)
    made = formats.detections(results)
    np.testing.assert_array_equal(made.mask, np.stack(masks))
    np.testing.assert_array_equal(np.add(sv.mask_to_xyxy(made.mask), (0, 0, 1, 1)), made.xyxy)


# --- datasets -----------------------------------------------------------------------------------


def test_parquet_of_datasets_goes_in_and_comes_out(masks: list[np.ndarray], tmp_path: Path) -> None:
    datasets = imported("datasets")
    rows = {
        "key": ["good", "empty", "damaged"],
        "image": [
            {"bytes": sample_bytes(), "path": None},
            None,
            {"bytes": sample_bytes()[:2000], "path": None},
        ],
        "boxes": [BOXES] * 3,
    }
    kinds = datasets.Features(
        {
            "key": datasets.Value("string"),
            "image": datasets.Image(decode=False),
            "boxes": datasets.List(datasets.List(datasets.Value("float64"))),
        }
    )
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(source))
    cache = {"cache_dir": str(tmp_path / "cache")}
    read = datasets.Dataset.from_parquet(str(source), **cache)
    read = read.cast_column("image", datasets.Image(decode=False))
    segmenter = BatchSegmenter("default-int8", keep=["key"])
    made = read.map(segmenter, batched=True, batch_size=2, remove_columns=read.column_names)
    made.to_parquet(str(target))
    good, empty, damaged = list(datasets.Dataset.from_parquet(str(target), **cache))
    assert [row["key"] for row in (good, empty, damaged)] == rows["key"]
    assert good["error"] is None
    for counts, mask in zip(good["rle"], masks, strict=True):
        np.testing.assert_array_equal(rle_decode({"size": good["size"], "counts": counts}), mask)
    assert "cell is empty" in empty["error"]
    assert "damaged" in damaged["error"]


# --- FiftyOne -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_fiftyone_reads_our_coco_file_and_we_read_its(
    coco: Path, masks: list[np.ndarray], tmp_path: Path
) -> None:
    """By its importer and its COCO objects, which take no database."""
    imported("pycocotools")
    importer_module = imported("fiftyone.utils.coco")
    height, width = sample().shape[:2]
    importer = importer_module.COCODetectionDatasetImporter(
        data_path=str(coco.parent), labels_path=str(coco), label_types="segmentations"
    )
    document = json.loads(coco.read_text())
    with importer:
        ((path, metadata, labels),) = list(importer)
    assert Path(path).name == "apples.jpg"
    assert (metadata.height, metadata.width) == (height, width)
    detections = labels["segmentations"] if isinstance(labels, dict) else labels
    back = []
    for detection, mask in zip(detections.detections, masks, strict=True):
        x, y = detection.bounding_box[:2]
        left, top = round(x * width), round(y * height)
        whole = np.zeros((height, width), bool)
        part = detection.mask
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        np.testing.assert_array_equal(whole, mask)
        theirs = importer_module.COCOObject.from_label(
            detection, metadata, image_id=1, category_id=1
        )
        back.append({**theirs.to_anno_dict(), "id": len(back) + 1})
    written = tmp_path / "back.json"
    images = [{"id": 1, "file_name": "apples.jpg", "height": height, "width": width}]
    categories = [{"id": 1, "name": document["categories"][0]["name"]}]
    written.write_text(
        json.dumps({"images": images, "annotations": back, "categories": categories})
    )
    for mask, expected in zip(ours(written), masks, strict=True):
        assert (mask & expected).sum() / (mask | expected).sum() > 0.95
