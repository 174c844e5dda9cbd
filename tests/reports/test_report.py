"""evaluate.report: one page from result files, complete, self-contained and true to its numbers."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from helpers.color import ColorRuntime
from helpers.tiny import write_coco

from picosam2.data.coco import read_coco
from picosam2.errors import DataError
from picosam2.evaluation import robustness
from picosam2.evaluation.clicks import measure_clicks
from picosam2.evaluation.run import evaluate
from picosam2.predictor import Predictor
from picosam2.reports import collect, qualitative, readme, report
from picosam2.reports.blocks import Heading, Table, Text, to_html, to_markdown

pytest.importorskip("matplotlib")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

WEIGHTS = {
    "name": "/somewhere/private/color.onnx", "file": "color.onnx", "bytes": 5_050_000,
    "sha256": "0" * 64, "runtime": "onnx", "precision": "fp32", "ms_per_crop": 5.0,
    "parameters": 1_262_818, "macs": 323_053_056, "model": {"input_size": 96},
    "machine": {"processor": "A processor", "cores": 2, "system": "Linux"},
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    source = write_coco(tmp_path_factory.mktemp("photos"), 4)
    images = read_coco(source.annotations, source.images).images
    predictor = Predictor(ColorRuntime())
    collected = [
        evaluate(predictor, images, protocol=protocol, weights=WEIGHTS).to_json()
        for protocol in ("paper-point", "click", "box", "paper-roi")
    ]
    collected.append(
        robustness.robustness(predictor, images, curves=("blur", "box-jitter"), weights=WEIGHTS)
    )
    collected.append(measure_clicks(predictor, images, clicks=3, weights=WEIGHTS).to_json())
    return json.loads(json.dumps(collected, allow_nan=False))


def test_the_numbers_are_those_of_the_results(results: list[dict[str, Any]]) -> None:
    result = collect.collect(results)
    assert [run["protocol"] for run in result["runs"]] == [
        "box", "click", "paper-roi", "paper-point"
    ]  # fmt: skip
    assert result["runs"][0]["miou"] == results[2]["miou"]
    assert len(result["models"]) == 1
    text = json.dumps(result, allow_nan=False)
    assert "private" not in text  # no paths of the machine
    assert '"items"' not in text


def test_a_report_is_whole_and_needs_no_network(
    results: list[dict[str, Any]], tmp_path: Path
) -> None:
    collected = collect.collect(results)
    examples = qualitative.comparison_image(
        qualitative.of_sample({"color fp32": Predictor(ColorRuntime())})
    )
    written = report.write_report(collected, tmp_path, examples=examples, examples_of="the sample")
    page = written.html.read_text()
    text = written.markdown.read_text()
    assert json.loads(written.json.read_text()) == collected
    for wanted in ("Latency", "architecture", "Corrective clicks", "Out of focus", "SAM-H"):
        assert wanted.lower() in page.lower()
    # Nothing is loaded from elsewhere; namespaces are names, not addresses.
    assert not re.search(r"(?:src|href)=\"(?!data:image|#)", page)
    assert "<script" not in page
    assert "url(http" not in page
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (tmp_path / name).is_file()
    for path in written.figures:
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_text())
    percent = f"{100 * collected['runs'][0]['miou']:.1f}"
    assert f"<strong>{percent}</strong>" in page
    assert f"**{percent}**" in text


def test_the_same_results_give_the_same_report(
    results: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = report.write_report(collect.collect(results), tmp_path / "a")
    second = report.write_report(collect.collect(copy.deepcopy(results)), tmp_path / "b")
    assert first.html.read_bytes() == second.html.read_bytes()


def test_a_leak_is_said(results: list[dict[str, Any]]) -> None:
    leaking = copy.deepcopy(results[2])
    leaking["leak"] = {"checked": 4, "met": 2, "trained_on": 1, "store": "x", "photos": ["a"]}
    text = to_markdown(report.blocks(collect.collect([leaking])))
    assert "**Warning:**" in text


def test_the_readme_is_rewritten_between_its_marks(
    results: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    collected = collect.collect(results)
    readme.update_readme(path, collected)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert readme.readme_block(collected) in text
    readme.update_readme(path, collected)
    assert path.read_text() == text
    path.write_text("no marks")
    with pytest.raises(DataError, match="report:begin"):
        readme.update_readme(path, collected)


def test_what_is_no_result_is_refused(results: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="at least one"):
        collect.collect(results[4:])
    with pytest.raises(DataError, match="lacks"):
        collect.collect([{"kind": "evaluation"}])


def test_published_figures_have_sources_and_sense() -> None:
    result = collect.published()
    for each in (*result["scores"], *result["latency"]):
        assert each["source"] in result["sources"]
    for each in result["scores"]:
        assert each["protocol"] in ("box", "click", "paper-roi", "paper-point")
        assert 0.4 < each["miou"] < 0.8
        assert each["hit_rate"] is None or each["hit_rate"] < each["miou"]
    distilled = [each for each in result["scores"] if each["model"] == "PicoSAM2, distilled"]
    assert [(each["dataset"], each["miou"]) for each in distilled] == [
        ("coco", 0.5193), ("lvis", 0.4488)
    ]  # fmt: skip


def test_ranks_take_no_object_twice() -> None:
    chosen = qualitative.at_ranks([0.9, 0.1, 0.5])
    assert len({index for _, index in chosen}) == len(chosen)
    assert chosen[-1] == ("worst", 1)
    names = [name for name, _ in qualitative.at_ranks(list(range(100)))]
    assert len(names) == len(qualitative.RANKS)


def test_examples_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="not in these annotations"):
        qualitative.of_images([{"annotation": 1, "iou": 0.5}], [], {})


def test_text_is_escaped() -> None:
    made = [
        Heading(text="A <b>"),
        Text(text="`x < y` & **so**"),
        Table(header=("a",), rows=(("<i>",),)),
    ]
    page = to_html("T <", made)
    assert "<h2>A &lt;b&gt;</h2>" in page
    assert "<code>x &lt; y</code> &amp; <strong>so</strong>" in page
    assert "<i>" not in page


PEER = {
    "name": "onnx:/somewhere/private/encoder.onnx,/somewhere/private/sam.onnx",
    "file": "encoder.onnx + sam.onnx", "bytes": 44_600_000, "sha256": "1" * 64,
    "runtime": "onnx", "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def with_peer(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results again as a peer's, every object worse by a tenth; and both on two domains."""
    peers = []
    for result in copy.deepcopy(results):
        if result["kind"] == "evaluation":
            for item in result["items"]:
                item["iou"] -= 0.1
        elif result["kind"] == "clicks":
            for each in result["objects"]:
                each["ious"] = [iou - 0.1 for iou in each["ious"]]
            result["miou"] = [value - 0.1 for value in result["miou"]]
        else:
            continue
        peers.append({**result, "weights": PEER, "weights_sha256": PEER["sha256"]})

    def domains(box: dict[str, Any], click: dict[str, Any]) -> dict[str, Any]:
        protocols = {
            each["protocol"]: {
                **{key: each[key] for key in ("miou", "miou_ci95", "baselines")},
                "sets": {"strawberries": each, "of our own": each},
            }
            for each in (box, click)
        }
        leaks = {"strawberries": {"checked": 4, "met": 1, "photos": ["private.jpg"]}}
        return {
            "kind": "domains", "protocols": protocols, "weights": box["weights"], "leaks": leaks
        }  # fmt: skip

    return [*results, *peers, domains(results[2], results[1]), domains(peers[2], peers[1])]


def test_a_peer_stands_beside_the_weights(with_peer: list[dict[str, Any]]) -> None:
    collected = collect.collect(with_peer)
    text = json.dumps(collected, allow_nan=False)
    assert "private" not in text
    assert [run["weights"]["sha256"] for run in collected["runs"]] == [WEIGHTS["sha256"]] * 4
    assert [model["sha256"] for model in collected["models"]] == [WEIGHTS["sha256"]]
    (beside,) = collected["beside"]
    assert beside["peer"]["option"] == "onnx:encoder.onnx,sam.onnx"
    for score in beside["scores"]:
        assert score["difference"] == pytest.approx(0.1, abs=1e-6)
        assert score["better"] == 1
    assert [each["difference"] for each in beside["clicks"][0]["miou"]] == pytest.approx([0.1] * 3)
    assert [each["protocol"] for each in beside["domains"]] == ["box", "click"]
    block = readme.readme_block(collected)
    box = next(score for score in beside["scores"] if score["protocol"] == "box")
    cells = f"**{100 * box['b']:.1f}** | {100 * box['a']:.1f} | +10.0 (+10.0 to +10.0)"
    assert f"| box, COCO, 4 objects | {cells} | 100 % / 0 % |" in block
    assert "| weights, MB | 5.05 | 44.6 |" in block
    assert "picosam2 clicks --peer onnx:encoder.onnx,sam.onnx --start click" in block
    assert "strawberries on the plant" in block
    assert "Of the 4 images of the sets 1 are among the training images" in block
    assert "docs/report/figures/beside-clicks.svg" in block
    markdown = to_markdown(report.blocks(collected))
    assert markdown.index("Beside another model") < markdown.index("All weights, by every protocol")


def test_times_are_those_of_the_very_weights(with_peer: list[dict[str, Any]]) -> None:
    times = {
        "kind": "times", "measured": "2026-11-29", "command": "python benchmarks/peer.py",
        "machine": {"processor": "A processor"},
        "models": {
            WEIGHTS["sha256"]: {"first_box_ms": 5.25}, PEER["sha256"]: {"first_box_ms": 730.0}
        },
    }  # fmt: skip
    block = readme.readme_block(collect.collect([*with_peer, times]))
    assert "| ms, first mask of an image by box | 5.2 | 730.0 |" in block
    assert "A processor, 2026-11-29, `python benchmarks/peer.py`" in block
    other = {**times, "models": {"2" * 64: {"first_box_ms": 1.0}, PEER["sha256"]: {}}}
    block = readme.readme_block(collect.collect([*with_peer, other]))
    assert "first mask" not in block


def test_everything_mode_names_the_weights_that_it_was_measured_with(
    results: list[dict[str, Any]],
) -> None:
    scores = {
        "ar@1": 0.02, "ar@10": 0.1, "ar@100": 0.2847, "masks_per_photo": 90, "seconds_per_photo": 9,
        "by_size": {"small": 0.1, "medium": None, "large": 0.5},
    }  # fmt: skip
    proposals = {"kind": "proposals", "n": 4, "methods": {"everything": scores}}
    for sha, name in (
        ("0" * 64, Path(WEIGHTS["name"]).stem),
        ("7b60a63c7730" * 5, "`7b60a63c7730`"),
    ):
        result = {**proposals, "weights_sha256": sha}
        text = to_markdown(report.blocks(collect.collect([*results, result])))
        assert f"| {name} | everything by grid | 4 | 2.0 | 10.0 | 28.5 | 10.0 | - | 50.0 |" in text


def test_both_methods_of_everything_mode_share_what_they_are_compared_with(
    results: list[dict[str, Any]],
) -> None:
    scores = {
        "ar@1": 0.02, "ar@10": 0.1, "ar@100": 0.2, "masks_per_photo": 90, "seconds_per_photo": 9,
        "by_size": {"small": 0.1, "medium": None, "large": 0.5},
    }  # fmt: skip
    measured = [
        {
            "kind": "proposals", "n": 4, "weights_sha256": "0" * 64,
            "settings": {"method": method}, "methods": {"everything": scores, "boxes": scores},
        }
        for method in ("finder", "grid")
    ]  # fmt: skip
    text = to_markdown(report.blocks(collect.collect([*results, *measured])))
    for row, count in (("everything by finder", 1), ("everything by grid", 1), ("boxes", 1)):
        assert text.count(f"| {row} |") == count, row
