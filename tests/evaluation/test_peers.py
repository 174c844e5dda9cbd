"""evaluation.peers: SAM-family models with random weights, small enough to make here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.sam import tiny_sam, tiny_sam2
from helpers.sam_onnx import write_sam_onnx
from helpers.tiny import scene, write_coco

from picosam2._files import sha256_file
from picosam2.data.coco import read_coco
from picosam2.errors import ConfigError, WeightsError
from picosam2.evaluation.peers import Peer
from picosam2.evaluation.run import evaluate
from picosam2.evaluation.sam import fit, open_sam, squash
from picosam2.prompts import Box, Point, Prompt

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="peers need the extra sam2")

# What facebook/sam2.1-hiera-* and facebook/sam-vit-* state in their preprocessor_config.json.
DOCUMENTED_MEAN = (0.485, 0.456, 0.406)
DOCUMENTED_STD = (0.229, 0.224, 0.225)


@pytest.fixture(scope="module", params=["sam2", "sam"])
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp(request.param)
    {"sam2": tiny_sam2, "sam": tiny_sam}[request.param]().save_pretrained(path)
    return f"{request.param}:{path}"


def test_squash_is_sam2s_preprocessing() -> None:
    image, _ = scene(1)
    shown = squash(image, 1024)
    assert shown.pixels.shape == (1, 3, 1024, 1024)
    assert shown.pixels.dtype == np.float32
    assert (shown.scale_x, shown.scale_y) == (1024 / 96, 1024 / 72)
    # Independently: torch's resize, then the documented constants.
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    large = torch.nn.functional.interpolate(
        tensor, (1024, 1024), mode="bilinear", align_corners=False, antialias=True
    )
    mean = torch.tensor(DOCUMENTED_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(DOCUMENTED_STD).view(1, 3, 1, 1)
    expected = (large / 255 - mean) / std
    # Pillow rounds to whole levels on the way.
    assert float(np.abs(shown.pixels - expected.numpy()).max()) < 1.01 / 255 / min(DOCUMENTED_STD)


def test_fit_is_sams_preprocessing() -> None:
    image = np.full((72, 96, 3), 255, np.uint8)
    shown = fit(image, 1024)
    assert (shown.scale_x, shown.scale_y) == pytest.approx((1024 / 96, 768 / 72))
    white = (1 - np.array(DOCUMENTED_MEAN)) / np.array(DOCUMENTED_STD)
    np.testing.assert_allclose(shown.pixels[0, :, :768].mean((1, 2)), white, rtol=1e-5)
    assert not shown.pixels[0, :, 768:].any()


def test_answers_have_the_images_size_and_are_ordered(spec: str) -> None:
    peer = Peer(open_sam(spec))
    image, _ = scene(2)
    clicks = peer.clicks(image, [Point(40, 30), Point(60, 50)])
    assert len(clicks) == 2
    for answers in clicks:
        scores = [candidate.score for candidate in answers]
        assert len(answers) == 3
        assert scores == sorted(scores, reverse=True)
        assert all(candidate.region.logits.shape == (72, 96) for candidate in answers)
    boxes = peer.boxes(image, [Box(20, 10, 60, 50)])
    assert boxes[0].mask(72, 96).shape == (72, 96)
    facts = peer.facts()
    assert facts["parameters"] > 1000
    assert facts["bytes"] > 4 * facts["parameters"]
    assert peer.timing()["encode_ms_per_image"] > 0
    assert len(facts["sha256"]) == 64


def test_it_gives_what_the_model_gives(spec: str) -> None:
    """The image encoded once and prompts in chunks: as the model's own forward."""
    peer = Peer(open_sam(spec))
    image, _ = scene(3)
    prepare = squash if spec.startswith("sam2") else fit
    shown = prepare(image, 64)
    # The model adds half a pixel: it counts from the center of the first one.
    place = torch.tensor([[[[40 * shown.scale_x - 0.5, 30 * shown.scale_y - 0.5]]]])
    with torch.inference_mode():
        output = peer.model.model(
            pixel_values=torch.from_numpy(shown.pixels), input_points=place, multimask_output=True
        )
    candidates = peer.clicks(image, [Point(40, 30)])[0]
    best = int(output.iou_scores[0, 0].argmax())
    assert candidates[0].score == pytest.approx(
        float(output.iou_scores[0, 0, best].clamp(0, 1)), abs=1e-5
    )
    resize = {"mode": "bilinear", "align_corners": False}
    large = torch.nn.functional.interpolate(output.pred_masks[:, 0], (64, 64), **resize)
    rows = 64 if prepare is squash else 48  # SAM's image of 72 x 96 fills 48 of 64 rows
    full = torch.nn.functional.interpolate(large[:, :, :rows], (72, 96), **resize)
    np.testing.assert_allclose(candidates[0].region.logits, full[0, best].numpy(), atol=1e-4)


@pytest.mark.parametrize("protocol", ["box", "click", "paper-point", "paper-roi"])
def test_every_protocol_measures_a_peer(spec: str, tmp_path: Path, protocol: str) -> None:
    source = write_coco(tmp_path, 2)
    images = read_coco(source.annotations, source.images).images
    result = evaluate(Peer(open_sam(spec)), images, protocol=protocol).to_json()
    assert result["n"] == 2
    assert 0 <= result["miou"] <= 1


def test_an_image_that_is_clicked_again_is_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_sam_onnx(tmp_path / "sam")
    model = open_sam(f"onnx:{folder}", threads=1)
    encode, encoded = model.encode, []

    def count(image: np.ndarray) -> object:
        encoded.append(image)
        return encode(image)

    monkeypatch.setattr(model, "encode", count)
    peer = Peer(model)
    first, _ = scene(2)
    second, _ = scene(3)
    for image, x in ((first, 40), (first, 50), (second, 40), (second, 50), (first, 40)):
        again = peer.clicks(image, [Point(x, 30)])
        fresh = Peer(open_sam(f"onnx:{folder}", threads=1)).clicks(image, [Point(x, 30)])
        np.testing.assert_array_equal(again[0][0].region.logits, fresh[0][0].region.logits)
    assert [image is first for image in encoded] == [True, False, True]


def test_folders_that_hold_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no model"):
        open_sam(f"sam2:{tmp_path}")
    transformers.BertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="bert"):
        open_sam(f"sam2:{tmp_path}")
    config = tmp_path / "config.json"
    tiny_sam2().config.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_sam(f"sam2:{tmp_path}")
    config.write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        open_sam(f"sam2:{tmp_path}")


def test_an_onnx_pair_is_a_peer(tmp_path: Path) -> None:
    """Answers that can be worked out: see `helpers.sam_onnx`."""
    folder = write_sam_onnx(tmp_path / "sam")
    peer = Peer(open_sam(f"onnx:{folder}", threads=1))
    image, _ = scene(2)
    (answers,) = peer.clicks(image, [Point(40, 30)])
    assert [round(answer.score, 3) for answer in answers] == [0.4, 0.3, 0.2]
    assert [answer.score for answer in peer.boxes(image, [Box(20, 10, 60, 50)])] == pytest.approx(
        [0.1]
    )
    (clicked,) = peer.answers(
        image, [Prompt((Point(40, 30), Point(50, 30, positive=False)))], several=False
    )
    # A point on the object counts once, one off it not at all, and the padding against it.
    scale = 64 / 96
    share = (np.array([40, 30]) * scale - 0.5 - 0).mean() / 3
    plain = peer.model.encode(image).features[0].mean()
    assert clicked[0].region.logits.mean() == pytest.approx(plain + share, abs=1.0)
    facts = peer.facts()
    assert facts["file"] == "encoder.onnx + decoder.onnx"
    assert facts["sha256"] == peer.weights_sha256 == sha256_file(folder / "encoder.onnx")
    with pytest.raises(ConfigError, match="names no model of the SAM family: write one of sam2"):
        open_sam(str(folder))


@pytest.mark.parametrize(("masks", "labels"), [(1, [2, 3, -1]), (4, [2, 3])])
def test_a_box_gets_the_mask_for_clear_prompts_of_decoders_that_choose_by_the_number_of_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: int, labels: list[int]
) -> None:
    """SAM's export for one mask chooses among several masks for fewer than three points."""
    model = open_sam(f"onnx:{write_sam_onnx(tmp_path / 'sam', masks=masks)}", threads=1)
    received = []

    class Recorder:
        def __init__(self, session: object) -> None:
            self.session = session

        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> object:
            received.append(feeds["point_labels"][0].tolist())
            assert feeds["point_coords"].shape[1] == len(received[-1])
            return self.session.run(names, feeds)

    monkeypatch.setattr(model, "_decoder", Recorder(model._decoder))
    peer = Peer(model)
    image, _ = scene(2)
    peer.boxes(image, [Box(20, 10, 60, 50)])
    peer.clicks(image, [Point(40, 30)])
    assert received == [labels, [1, -1]]


def test_a_peer_is_given_the_mask_before(tmp_path: Path) -> None:
    """The model of `helpers.sam_onnx` adds what it is given as a mask to its predicted IoU."""
    model = open_sam(f"onnx:{write_sam_onnx(tmp_path / 'sam', masks=1)}", threads=1)
    encoded = model.encode(np.zeros((32, 64, 3), np.uint8))
    mask = np.zeros((32, 64), np.float32)
    mask[:, 32:] = 1
    click = Prompt((Point(8, 8),))
    (without,), (with_mask,) = (
        model.decode(encoded, [prompt], several=False)
        for prompt in (click, replace(click, mask=mask))
    )
    sure = np.log((1 - 1e-4) / 1e-4)
    # A quarter of the square is on the object; the rest, with the half below the image, is off it.
    expected = 1 + (0.25 - 0.75) * 16**2 * sure
    assert with_mask.scores_M[0] - without.scores_M[0] == pytest.approx(expected, rel=0.02)
