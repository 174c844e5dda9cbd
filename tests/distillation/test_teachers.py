"""distillation.teachers and sam: who is asked, how, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="teachers run in torch")

from helpers.fakes import FakeRuntime, fixed_scores, reddish  # noqa: E402
from helpers.sam import SIDE, tiny_sam, tiny_sam2  # noqa: E402
from helpers.sam_onnx import CELL, write_sam_onnx  # noqa: E402
from helpers.tiny import scene  # noqa: E402

from picosam2 import geometry, masks  # noqa: E402
from picosam2.distillation.protocol import Target, TeacherConfig  # noqa: E402
from picosam2.distillation.teachers import CheckpointTeacher, open_teacher  # noqa: E402
from picosam2.errors import ConfigError, WeightsError  # noqa: E402
from picosam2.evaluation import sam  # noqa: E402
from picosam2.geometry import Window  # noqa: E402
from picosam2.images import normalize  # noqa: E402
from picosam2.masks import stability  # noqa: E402
from picosam2.predictor import Predictor  # noqa: E402
from picosam2.prompts import Box, Point  # noqa: E402

CPU = TeacherConfig(device="cpu", precision="fp32")


def targets(count: int = 1, seed: int = 0) -> tuple[np.ndarray, list[Target]]:
    """An image and targets on it: the disc, then boxes at random places with their middles."""
    image, mask = scene(seed)
    rng = np.random.default_rng(seed)
    made = [Target(box=Box(*masks.bbox(mask)), point=masks.center_point(mask), mask=mask)]
    for _ in range(count - 1):
        x, y = rng.uniform(2, 50, 2)
        box = Box(x, y, x + rng.uniform(5, 40), y + rng.uniform(5, 20))
        made.append(Target(box=box, point=box.center, mask=mask))
    return image, made


# --- specifications -----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["", "sam2", "sam2:", "sam9:x", ":x"])
def test_what_names_no_teacher(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"names no teacher: write one of checkpoint:\.\.\."):
        open_teacher(spec)


@pytest.mark.parametrize("setting", ["prompt", "choose", "precision"])
def test_impossible_settings(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"`{setting}` must be one of"):
        TeacherConfig(**{setting: "x"})


# --- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_answers_boxes_as_the_predictor_does(tiny_safetensors: Path) -> None:
    image, objects = targets(5)
    teacher = open_teacher(f"checkpoint:{tiny_safetensors}", CPU)
    predictor = Predictor(tiny_safetensors, runtime="torch")
    answers = teacher(image, objects)
    for target, answer, expected in zip(
        objects, answers, predictor.boxes(image, [t.box for t in objects]), strict=True
    ):
        assert answer.window == expected.window == geometry.box_window(target.box)
        assert answer.logits.dtype == np.float32
        region = geometry.paste_region(answer.logits, answer.window, *image.shape[:2])
        np.testing.assert_allclose(region.logits, expected.region.logits, atol=1e-4)
        assert answer.predicted_iou == pytest.approx(expected.score, abs=1e-5)


def test_an_images_windows_share_a_batch() -> None:
    image, objects = targets(7)
    runtime = FakeRuntime(reddish)
    teacher = CheckpointTeacher(runtime, name="fake")
    assert len(teacher(image, objects)) == 7
    assert [len(batch) for batch in runtime.calls] == [7]
    assert teacher(image, []) == []


def test_the_expected_iou_is_the_scorers_or_stability() -> None:
    image, objects = targets()
    plain = CheckpointTeacher(FakeRuntime(reddish), name="plain")
    answer = plain(image, objects)[0]
    assert answer.predicted_iou == pytest.approx(stability(answer.logits))
    assert plain.settings["expects"] == "stability"
    runtime = FakeRuntime(reddish, scorers={"box": fixed_scores(0.37)})
    sure = CheckpointTeacher(runtime, name="sure")
    assert sure(image, objects)[0].predicted_iou == pytest.approx(0.37, abs=1e-4)
    assert sure.settings["expects"] == "scorer"


def test_a_checkpoint_follows_its_weights_window_rules() -> None:
    image, objects = targets()
    runtime = FakeRuntime(reddish, geometry={"box_growth": 1.5, "box_max_aspect": 1.0})
    window = CheckpointTeacher(runtime, name="square")(image, objects)[0].window
    assert window == geometry.box_window(objects[0].box, growth=1.5, max_aspect=1.0)


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that is not slow in bf16; torch computes it on any."""
    torch = pytest.importorskip("torch", reason="bf16 is torch's")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.usefixtures("has_bf16")
def test_bf16_gives_nearly_the_same(tiny_safetensors: Path) -> None:
    image, objects = targets(3)
    exact = open_teacher(f"checkpoint:{tiny_safetensors}", CPU)(image, objects)
    rough = open_teacher(f"checkpoint:{tiny_safetensors}", replace(CPU, precision="bf16"))
    for first, other in zip(exact, rough(image, objects), strict=True):
        assert other.logits.dtype == np.float32
        spread = float(np.abs(first.logits).max())
        assert 0 < np.abs(first.logits - other.logits).max() < 0.1 * spread


def test_onnx_weights_teach_too(tiny_safetensors: Path, tiny_onnx: Path) -> None:
    image, objects = targets(2)
    first = open_teacher(f"checkpoint:{tiny_safetensors}", CPU)
    other = open_teacher(f"checkpoint:{tiny_onnx}", CPU)
    for a, b in zip(first(image, objects), other(image, objects), strict=True):
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-3)


def test_a_checkpoint_that_cannot_teach(tmp_path: Path, tiny_safetensors: Path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        open_teacher(f"checkpoint:{tmp_path / 'gone.safetensors'}")
    with pytest.raises(WeightsError, match="no weights named nobody"):
        open_teacher("checkpoint:nobody")
    with pytest.raises(ConfigError, match="answers boxes"):
        open_teacher(f"checkpoint:{tiny_safetensors}", replace(CPU, prompt="point"))
    with pytest.raises(WeightsError, match="cannot teach boxes"):
        CheckpointTeacher(FakeRuntime(reddish, click_windows="native"), name="clicks")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny_safetensors: Path) -> None:
    with pytest.raises(ConfigError, match="--device cpu"):
        open_teacher(f"checkpoint:{tiny_safetensors}", replace(CPU, device="cuda"))


# --- the SAM family -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs the extra sam2")


@pytest.fixture(scope="module", params=["sam2", "sam"])
def spec(request: pytest.FixtureRequest, transformers: Any, tmp_path_factory: Any) -> str:
    """`sam2:` or `sam:` and the folder of a tiny model with random weights."""
    path = tmp_path_factory.mktemp(request.param)
    {"sam2": tiny_sam2, "sam": tiny_sam}[request.param]().save_pretrained(path)
    return f"{request.param}:{path}"


def reference(spec: str, image: np.ndarray, target: Target, prompt: str) -> tuple[Any, Any, Window]:
    """One prompt alone through the model's own forward: (3, s, s) logits, (3,) scores, window."""
    kind, folder = spec.split(":", 1)
    model, _ = sam.load_model(folder)
    height, width = image.shape[:2]
    shown = (sam.squash if kind == "sam2" else sam.fit)(image, SIDE)
    # Whoever counts from the center of the first pixel is half a pixel behind us.
    scale = np.array([shown.scale_x, shown.scale_y])
    point = np.array([target.point.x, target.point.y]) * scale - 0.5
    box = np.array([target.box.x0, target.box.y0, target.box.x1, target.box.y1])
    box = box * np.tile(scale, 2) - 0.5
    prompts = {}
    if prompt != "box":
        prompts["input_points"] = torch.tensor(point, dtype=torch.float32)[None, None, None]
    if prompt != "point":
        prompts["input_boxes"] = torch.tensor(box, dtype=torch.float32)[None, None]
    with torch.inference_mode():
        output = model(pixel_values=torch.from_numpy(shown.pixels), **prompts)
    long_side = max(height, width)
    window = Window(0, 0, width, height) if kind == "sam2" else Window(0, 0, long_side, long_side)
    return output.pred_masks[0, 0].numpy(), output.iou_scores[0, 0].numpy(), window


@pytest.mark.parametrize("prompt", ["box", "point", "both"])
def test_sam_gives_what_the_model_gives(spec: str, prompt: str) -> None:
    image, objects = targets(4)
    teacher = open_teacher(spec, replace(CPU, prompt=prompt))
    for target, answer in zip(objects, teacher(image, objects), strict=True):
        maps, scores, window = reference(spec, image, target, prompt)
        best = int(scores.argmax())
        np.testing.assert_allclose(answer.logits, maps[best], atol=1e-4)
        assert answer.predicted_iou == pytest.approx(float(scores[best]), abs=1e-4)
        assert answer.window == window
        assert maps.std() > 0.02  # 200 times the tolerance, else it would be no test


def test_prompts_change_the_answer(spec: str) -> None:
    image, objects = targets(2)
    collected = [
        open_teacher(spec, replace(CPU, prompt=p))(image, objects) for p in ("box", "point")
    ]
    assert np.abs(collected[0][0].logits - collected[0][1].logits).max() > 0.01
    assert np.abs(collected[0][0].logits - collected[1][0].logits).max() > 0.01


def test_an_image_is_encoded_once_for_prompts_in_chunks(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, objects = targets(9)
    teacher: Any = open_teacher(spec, CPU)
    whole = teacher(image, objects)
    encoded: list[int] = []
    decoded: list[int] = []
    vision = teacher._model.model.vision_encoder
    vision.register_forward_hook(lambda *_: encoded.append(1))
    teacher._model.model.mask_decoder.register_forward_hook(lambda *_: decoded.append(1))
    monkeypatch.setattr(sam, "CHUNK", 4)
    parts = teacher(image, objects)
    assert (len(encoded), len(decoded)) == (1, 3)
    for first, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(first.logits, other.logits, atol=1e-4)


def test_the_truth_chooses_the_mask_nearest_to_it(spec: str) -> None:
    image, objects = targets(6)
    chosen = open_teacher(spec, replace(CPU, choose="truth"))(image, objects)
    for target, answer in zip(objects, chosen, strict=True):
        maps, scores, window = reference(spec, image, target, "box")
        ious = [
            masks.iou(geometry.paste(each, window, *image.shape[:2]) > 0, target.mask)
            for each in maps
        ]
        assert masks.iou(
            geometry.paste(answer.logits, answer.window, *image.shape[:2]) > 0, target.mask
        ) == pytest.approx(max(ious))
        best = int(np.argmax(ious))
        assert answer.predicted_iou == pytest.approx(float(scores[best]), abs=1e-4)


def test_a_truth_must_be_known_to_choose(spec: str) -> None:
    image, objects = targets()
    teacher = open_teacher(spec, replace(CPU, choose="truth"))
    with pytest.raises(ConfigError, match="a truth that is not known"):
        teacher(image, [replace(objects[0], mask=None)])


@pytest.mark.usefixtures("has_bf16")
def test_sam_in_bf16_gives_nearly_the_same(spec: str) -> None:
    image, objects = targets(2)
    exact = open_teacher(spec, replace(CPU, choose="truth"))
    rough = open_teacher(spec, replace(CPU, choose="truth", precision="bf16"))
    assert exact.fingerprint != rough.fingerprint
    for first, other in zip(exact(image, objects), rough(image, objects), strict=True):
        assert other.logits.dtype == np.float32
        assert np.isfinite(other.logits).all()
        assert first.window == other.window


def test_fingerprints_are_of_weights_and_of_how_they_are_asked(
    spec: str, transformers: Any, tmp_path: Path
) -> None:
    kind = spec.split(":", 1)[0]
    usual = open_teacher(spec, CPU)
    assert open_teacher(spec, CPU).fingerprint == usual.fingerprint
    for change in ({"prompt": "point"}, {"choose": "truth"}):
        assert open_teacher(spec, replace(CPU, **change)).fingerprint != usual.fingerprint
    {"sam2": tiny_sam2, "sam": tiny_sam}[kind](seed=1).save_pretrained(tmp_path)
    other = open_teacher(f"{kind}:{tmp_path}", CPU)
    assert other.fingerprint != usual.fingerprint
    assert other.settings == usual.settings


def test_the_networks_square_is_the_documented_one(transformers: Any) -> None:
    """1,024 pixels is what the published configurations have, and `transformers`' defaults."""
    assert sam.input_side(transformers.Sam2Config()) == 1024
    assert sam.input_side(transformers.SamConfig()) == 1024


def test_models_of_another_kind(spec: str, transformers: Any, tmp_path: Path) -> None:
    kind, folder = spec.split(":", 1)
    wrong = "sam" if kind == "sam2" else "sam2"
    with pytest.raises(WeightsError, match=f"holds a model of type {kind}: say {kind}:"):
        open_teacher(f"{wrong}:{folder}", CPU)
    with pytest.raises(WeightsError, match="holds no model: it needs a config"):
        open_teacher(f"{kind}:{tmp_path}", CPU)
    transformers.BertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="of type 'bert'"):
        open_teacher(f"{kind}:{tmp_path}", CPU)


def test_a_hub_that_cannot_be_reached(transformers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for where in ("nobody/no-such-model", "a/folder/that/is/not/there"):
        with pytest.raises(
            WeightsError, match=f"there is no folder {where}, and no model"
        ) as caught:
            open_teacher(f"sam2:{where}", CPU)
        assert "check the name and the network" in str(caught.value)


# --- ONNX pairs ---------------------------------------------------------------------------------


@pytest.fixture
def onnx_folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnx", reason="makes its own ONNX files")
    return write_sam_onnx(tmp_path / "sam")


@pytest.mark.parametrize("prompt", ["box", "point", "both"])
def test_onnx_is_asked_in_the_layout_of_the_export(onnx_folder: Path, prompt: str) -> None:
    image, objects = targets(3)
    teacher = open_teacher(f"onnx:{onnx_folder}", replace(CPU, prompt=prompt))
    pixels = np.zeros((3, SIDE, SIDE), np.float32)
    pixels[:, :48] = normalize(  # 72 x 96 at two thirds
        np.asarray(sam.Image.fromarray(image).resize((64, 48), sam.Image.Resampling.BILINEAR))[None]
    )[0]
    mean = pixels.reshape(3, SIDE // CELL, CELL, SIDE // CELL, CELL).mean((0, 2, 4))
    for target, answer in zip(objects, teacher(image, objects), strict=True):
        point = np.array([target.point.x, target.point.y]) * 2 / 3 - 0.5
        box = np.array([target.box.x0, target.box.y0, target.box.x1, target.box.y1]) * 2 / 3 - 0.5
        coords = {
            "point": [(point, 1), (np.zeros(2), -1)],
            "box": [(box[:2], 2), (box[2:], 3)],
            "both": [(point, 1), (box[:2], 2), (box[2:], 3)],
        }[prompt]
        share = np.mean([place * label for place, label in coords])
        # The last of four masks has the highest score; the first is not looked at.
        np.testing.assert_allclose(answer.logits, 4 * mean + share, atol=1e-3)
        assert answer.predicted_iou == pytest.approx(0.4)
        assert answer.window == Window(0, 0, 96, 96)


def test_an_export_with_one_mask(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = write_sam_onnx(tmp_path, masks=1)
    image, objects = targets()
    files = f"onnx:{folder / 'encoder.onnx'},{folder / 'decoder.onnx'}"
    assert open_teacher(files, CPU)(image, objects)[0].predicted_iou == pytest.approx(0.1)
    assert open_teacher(files, CPU).fingerprint == open_teacher(f"onnx:{folder}", CPU).fingerprint


def test_onnx_files_of_something_else(onnx_folder: Path, tmp_path: Path) -> None:
    encoder, decoder = onnx_folder / "encoder.onnx", onnx_folder / "decoder.onnx"
    with pytest.raises(WeightsError, match=r"decoder.onnx is no encoder of SAM"):
        open_teacher(f"onnx:{decoder},{encoder}", CPU)
    with pytest.raises(WeightsError, match="is no decoder of SAM: it has no has_mask_input"):
        open_teacher(f"onnx:{encoder},{encoder}", CPU)
    with pytest.raises(WeightsError, match="there is no file"):
        open_teacher(f"onnx:{encoder},{tmp_path / 'gone.onnx'}", CPU)
    with pytest.raises(WeightsError, match="give a folder with encoder"):
        open_teacher(f"onnx:{tmp_path / 'gone'}", CPU)
    encoder.write_bytes(b"no onnx")
    with pytest.raises(WeightsError, match="is no ONNX file that can be run"):
        open_teacher(f"onnx:{onnx_folder}", CPU)


def test_a_point_is_a_click(onnx_folder: Path) -> None:
    """The same answer wherever the box is: with --prompt point it is not shown."""
    image, objects = targets()
    teacher = open_teacher(f"onnx:{onnx_folder}", replace(CPU, prompt="point"))
    moved = replace(objects[0], box=Box(1, 1, 4, 4))
    first, other = teacher(image, [objects[0], moved])
    np.testing.assert_array_equal(first.logits, other.logits)
    far = replace(objects[0], point=Point(1, 1))
    assert np.abs(teacher(image, [far])[0].logits - first.logits).max() > 0.1
