"""The studies' files: every variant is a training that can be run, and what its table says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.scripts import load_script

pytest.importorskip("torch")

from picosam2._config import from_table
from picosam2.evaluation.protocols import PROTOCOLS
from picosam2.models.costs import stage_costs
from picosam2.training.config import Recipe

FOLDER = Path(__file__).parents[2] / "tools" / "studies"
STUDIES = sorted(FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def run() -> ModuleType:
    return load_script(FOLDER / "run.py")


def recipes(run: ModuleType, path: Path) -> dict[str, Recipe]:
    study = tomllib.loads(path.read_text())
    return {
        name: from_table(run.VariantRecipe, run.merged(study["base"], variant, 3), where=name)
        for name, variant in study["variants"].items()
    }


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_is_a_recipe(run: ModuleType, path: Path) -> None:
    result = recipes(run, path)
    assert len({str(recipe) for recipe in result.values()}) >= len(result) - 1  # stores differ, too
    assert {recipe.train.seed for recipe in result.values()} == {3}
    assert len({(r.train.samples, r.train.batch, r.train.lr) for r in result.values()}) == 1
    study = tomllib.loads(path.read_text())
    for each in (study, *study["variants"].values()):
        for protocol, jitter, *limit in each.get("measure", ()):
            assert protocol in PROTOCOLS
            assert 0 <= jitter < 1
            assert all(count > 0 for count in limit)


def test_the_sensors_study_spends_what_pooling_saves_within_the_limits(run: ModuleType) -> None:
    stages = stage_costs(recipes(run, FOLDER / "in-sensor.toml")["pool-deep"].model.build())
    assert sum(stage.parameters for stage in stages) <= 1.4e6
    assert sum(stage.macs for stage in stages) <= 340e6


def test_a_table_of_results(run: ModuleType) -> None:
    def seed(number: int, miou: float, best: float, change: float | None = None) -> dict[str, Any]:
        score: dict[str, Any] = {"miou": miou, "best_candidate": best}
        if change is not None:
            score |= {"difference": change, "difference_ci95": [change - 0.01, change + 0.02]}
        return {"seed": number, "click": score}

    costs = {
        "model": {"input_size": 96},
        "parameters": 1_262_859,
        "macs": 323_421_696,
        "sensor_bytes": 3_723_000,
    }
    rows = run.table(
        {
            "paper": {"costs": costs, "seeds": [seed(0, 0.36, 0.57)]},
            "one": {"costs": costs, "seeds": [seed(0, 0.37, 0.37, 0.01)]},
            "none": {"costs": costs, "seeds": []},
            "two": {"costs": costs, "seeds": [seed(0, 0.37, 0.5, 0.01), seed(1, 0.39, 0.6, 0.02)]},
        },
        ["box", "click"],
    ).splitlines()
    assert rows[0].endswith("| box | box: difference | click | click: difference |")
    start = "| 96 | 1,262,859 | 323 | 3.55 |"
    assert rows[2] == f"| paper {start} 1 |  |  | 36.0 (57.0) |  |"
    assert rows[3] == f"| one {start} 1 |  |  | 37.0 | +1.0 [+0.0, +3.0] |"
    assert rows[4] == f"| none {start} 0 |  |  |  |  |"
    assert rows[5] == f"| two {start} 2 |  |  | 38.0 (55.0) | +1.5 |"


def test_a_table_is_put_into_a_page(run: ModuleType) -> None:
    page = "# A\n\n<!-- s.toml -->\nold\n<!-- end of s.toml -->\n\nText.\n"
    once = run.inserted(page, "s.toml", "| a |\n")
    assert once == "# A\n\n<!-- s.toml -->\n\n| a |\n\n<!-- end of s.toml -->\n\nText.\n"
    assert run.inserted(once, "s.toml", "| a |\n") == once
    with pytest.raises(ValueError, match=r"no lines <!-- t\.toml -->"):
        run.inserted(page, "t.toml", "| a |\n")


def test_the_studys_page_has_a_place_for_its_table(run: ModuleType) -> None:
    page = (FOLDER.parents[1] / "docs" / "in-sensor-design.md").read_text()
    assert "| b |" in run.inserted(page, "in-sensor.toml", "| b |\n")


def test_averaging_weights_of_which_one_takes_guidance(tmp_path: Path, monkeypatch) -> None:
    import sys
    from dataclasses import replace

    import torch
    from helpers.configs import CONFIGS

    from picosam2.models.checkpoint import load_weights, save_weights

    plain = CONFIGS["half size"].build()
    guided = replace(CONFIGS["half size"], guidance=True).build()
    torch.nn.init.ones_(guided.guidance[-1].weight)
    save_weights(tmp_path / "a.safetensors", plain, {})
    save_weights(tmp_path / "b.safetensors", guided, {"step": 3})
    average = load_script(FOLDER / "average.py")
    words = ["average", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    monkeypatch.setattr(sys, "argv", [*words, "--shares", "0.25", "0.75", "--out", str(tmp_path)])
    average.main()
    mean = load_weights(tmp_path / "weights.safetensors")
    expected = 0.25 * plain.head.weight + 0.75 * guided.head.weight
    assert torch.allclose(mean.head.weight, expected, atol=1e-6)
    assert torch.allclose(mean.guidance[-1].weight, torch.tensor(0.75))


def test_a_set_without_objects_at_the_border_has_dashes_there() -> None:
    windows = load_script(FOLDER / "published_windows.py")
    inside, border = (False, 0.5, 0.6), (True, 0.2, 0.4)
    assert windows.cells([inside]) == ["0 of 1", "50.0", "50.0", "-", "60.0", "60.0", "-"]
    assert windows.cells([inside, border]) == [
        "1 of 2", "35.0", "50.0", "20.0", "50.0", "60.0", "40.0",
    ]  # fmt: skip
