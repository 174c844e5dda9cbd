"""`tools/detector`: the graph of a TensorFlow.js file, boxes by a detector, and a file of them."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.scripts import load_script
from helpers.tiny import write_coco
from PIL import Image

torch = pytest.importorskip("torch", reason="the detector runs with torch")

from torch.nn import functional as F  # noqa: E402

from picosam2.data.detections import read_detections  # noqa: E402
from picosam2.data.image_store import (  # noqa: E402
    ImageStore,
    ImageStoreConfig,
    prepare_images,
)

FOLDER = Path(__file__).parents[2] / "tools" / "detector"
NAMES = ("tfjs", "nanodet", "yolov7", "label")  # each finds those before it beside it
for name in NAMES:
    sys.modules[name] = load_script(FOLDER / f"{name}.py")
graph, _, yolov7, label = (sys.modules[name] for name in NAMES)

VALID = {"s": base64.b64encode(b"VALID").decode()}


def sides(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def write_graph(folder: Path, nodes: list[dict[str, Any]], weights: dict[str, np.ndarray]) -> Path:
    """A graph's file, and its weights in a file beside it, floats in 16 bits."""
    listed = []
    content = b""
    for name, values in weights.items():
        half = values.dtype == np.float32
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        entry["dtype"] = "float32" if half else "int32"
        if half:
            entry["quantization"] = {"dtype": "float16"}
        content += values.astype("<f2" if half else "<i4").tobytes()
        listed.append(entry)
    (folder / "model.bin").write_bytes(content)
    document = {
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["model.bin"], "weights": listed}],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(document))
    return path


def node(name: str, operation: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": operation, "input": list(inputs), "attr": attributes}


def test_a_graph_gives_what_its_operations_give(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float16).astype(np.float32)
    weights = {
        "kernel": kernel,
        "bias": np.float32([0.5, -1, 0, 2]),
        "sides": np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]),
        "low": np.array(-8, np.float32),
        "size": np.int32([8, 10]),
        "order": np.int32([0, 3, 1, 2]),
        "axis": np.array(1, np.int32),
        "halves": np.int32([3, 1]),
        "flat": np.int32([1, -1]),
    }
    nodes = [  # not in the order in which they have to run
        node("out", "Reshape", "joined", "flat"),
        node("joined", "ConcatV2", "parts:1", "parts", "axis"),
        node("parts", "SplitV", "turned", "halves", "axis"),
        node("turned", "Transpose", "large", "order"),
        node("large", "ResizeBilinear", "pooled", "size", half_pixel_centers={"b": True}),
        node("pooled", "MaxPool", "padded", ksize=sides(1, 3, 3, 1), strides=sides(1, 2, 2, 1),
             padding=VALID),
        node("padded", "PadV2", "active", "sides", "low"),
        node("active", "LeakyRelu", "sum", alpha={"f": 0.1}),
        node("sum", "AddV2", "convolved", "bias"),
        node("convolved", "Conv2D", "image", "kernel", strides=sides(1, 1, 1, 1), padding=VALID),
        node("image", "Placeholder"),
    ]  # fmt: skip
    image = torch.from_numpy(rng.normal(size=(1, 9, 11, 2)).astype(np.float32))
    (answer,) = graph.Graph(write_graph(tmp_path, nodes, weights))({"image": image}, ["out"])

    x = F.conv2d(image.permute(0, 3, 1, 2), torch.from_numpy(kernel).permute(3, 2, 0, 1))
    x = F.leaky_relu(x + torch.from_numpy(weights["bias"])[:, None, None], 0.1)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-8.0), 3, 2)
    x = F.interpolate(x, (8, 10), mode="bilinear")
    expected = torch.cat([x[:, 3:], x[:, :3]], 1).reshape(1, -1)
    assert torch.allclose(answer, expected, atol=1e-5)


def test_a_graph_with_something_else(tmp_path: Path) -> None:
    nodes = [node("out", "Cosh", "image"), node("image", "Placeholder")]
    path = write_graph(tmp_path, nodes, {"a": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="no rule for the operation Cosh"):
        graph.Graph(path)({"image": torch.zeros(1)}, ["out"])
    (tmp_path / "model.bin").write_bytes(b"\0" * 8)
    with pytest.raises(ValueError, match="another length"):
        graph.Graph(path)


class Bright:
    """A detector of a bright box, of class 3; where it sees half of it or less, of class 5, too."""

    def cells(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        bright = np.asarray(image)[:, :, 0] > 128
        scores = np.zeros((2, 80), np.float32)
        boxes = np.zeros((2, 4), np.float32)
        if bright.any():
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            boxes[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            scores[0, 3] = 0.9
            scores[1, 5] = 0.07
        return boxes, scores

    whole = cells


def test_what_a_part_cuts_off_is_left_to_larger_views() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:40, 110:150] = 255  # cut by the two parts on the left, which end at 120
    detected = label.detect(Bright(), image, parts=True)
    assert detected.tolist() == [pytest.approx([110, 20, 150, 40, 0.9])]
    assert label.detect(Bright(), np.zeros((50, 50, 3), np.uint8), parts=True).shape == (0, 5)


def test_a_store_is_labeled_once_and_its_validation_images_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_images(
        [write_coco(tmp_path, 8), write_coco(tmp_path, 4, start=20, name="others")],
        tmp_path / "store", ImageStoreConfig(validation=0.3), workers=1,
    )  # fmt: skip
    store, out = ImageStore(tmp_path / "store"), tmp_path / "boxes.jsonl"
    shown = []

    class Counted(Bright):
        def __init__(self, path: Path) -> None:
            assert path == Path("nanodet.json")

        def whole(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
            shown.append(image.size)
            return self.cells(image)

    monkeypatch.setattr(label, "NanoDet", Counted)
    monkeypatch.setattr(
        sys, "argv",
        ["label.py", "--model", "nanodet.json", "--images", str(store.path), "--out", str(out),
         "--skip", "others"],
    )  # fmt: skip
    label.main()
    names = np.array(store.source_names)[store.images["source"]]
    wanted = np.flatnonzero(~store.images["validation"] & (names != "others"))
    assert 0 < len(wanted) < (names != "others").sum()
    assert len(shown) == len(wanted)
    boxes = read_detections(out)
    assert boxes.boxes.keys() == {(str(names[row]), int(store.images["id"][row])) for row in wanted}

    whole = out.read_text()
    out.write_text(whole[:-20])  # as after a kill
    label.main()
    assert len(shown) == len(wanted) + 1
    assert out.read_text() == whole


def pickled(path: Path, classes: dict[str, type]) -> None:
    """A file like YOLOv7's: a network of classes that only the other program has."""
    common, yolo = ModuleType("models.common"), ModuleType("models.yolo")
    for name, kind in classes.items():
        module = yolo if name in {"ISegment", "SegmentationModel"} else common
        kind.__module__, kind.__qualname__, kind.__name__ = module.__name__, name, name
        setattr(module, name, kind)

    def layer(kind: str, number: int, source: int | list[int], **parts: Any) -> Any:
        made = classes[kind]()
        made.i, made.f = number, source
        for name, part in parts.items():
            setattr(made, name, part)
        return made

    convolution = torch.nn.Conv2d(3, 4, 3, 8, 1, bias=False)
    added = classes["ImplicitA"]()
    added.implicit = torch.nn.Parameter(torch.zeros(1, 8, 1, 1))
    head = torch.nn.Conv2d(8, 2 * (5 + 80 + 3), 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    network = classes["SegmentationModel"]()
    network.save = [0]
    network.model = torch.nn.Sequential(
        layer("Conv", 0, -1, conv=convolution, bn=torch.nn.BatchNorm2d(4), act=torch.nn.SiLU()),
        layer("MP", 1, -1, m=torch.nn.MaxPool2d(1)),
        layer("Concat", 2, [-1, 0], d=1),
        layer("ISegment", 3, [2], m=torch.nn.ModuleList([head]), ia=torch.nn.ModuleList([added]),
              na=2, no=5 + 80 + 3, nc=80, stride=torch.tensor([8.0]),
              anchors=torch.tensor([[[1.0, 2.0], [4.0, 1.0]]])),
    )  # fmt: skip
    network.model[2].f = [-1, 0]
    network.save = [0, 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "models", ModuleType("models"))
        patch.setitem(sys.modules, "models.common", common)
        patch.setitem(sys.modules, "models.yolo", yolo)
        torch.save({"ema": None, "model": network.half()}, path)


def other_classes(*further: str) -> dict[str, type]:
    names = ("Conv", "MP", "Concat", "ImplicitA", "ISegment", "SegmentationModel", *further)
    return {name: type(name, (torch.nn.Module,), {}) for name in names}


def test_boxes_of_a_pickled_network_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    pickled(tmp_path / "yolov7-seg.pt", other_classes())
    detector = yolov7.YoloV7(tmp_path / "yolov7-seg.pt", 64)
    boxes, scores = detector.cells(Image.new("RGB", (256, 128)))  # seen as 64 x 32: 8 x 4 cells
    assert boxes.shape == (2 * 8 * 4, 4)
    assert scores.shape == (2 * 8 * 4, 80)
    assert np.allclose(scores, 0.25)  # 0 as a logit, of the box and of the class
    sides = boxes[:, 2:] - boxes[:, :2]
    inner = 2 * 8 + 3  # third row and fourth column: both boxes lie within the image
    assert sides[inner] == pytest.approx([8 * 4, 16 * 4])
    assert boxes[inner] == pytest.approx([3.5 * 32 - 16, 2.5 * 32 - 32, 3.5 * 32 + 16, 112])
    assert sides[32 + inner] == pytest.approx([32 * 4, 8 * 4])
    assert boxes.min() == 0
    assert (boxes.max(0) <= [256, 128, 256, 128]).all()


def test_a_pickle_that_names_anything_else_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return Path(tmp_path / "made").touch, ()

    torch.save({"model": Runs()}, tmp_path / "yolov7-seg.pt")
    with pytest.raises(pickle.UnpicklingError):
        yolov7.read_yolov7(tmp_path / "yolov7-seg.pt")
    assert not (tmp_path / "made").exists()
