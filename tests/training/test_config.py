"""Recipes: unknown keys and wrong types are errors in plain words, defaults survive TOML."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from picosam2._config import from_table
from picosam2.data.augment import AugmentConfig
from picosam2.errors import ConfigError
from picosam2.models.network import ModelConfig
from picosam2.training.config import (
    FinderRecipe,
    Recipe,
    TrainConfig,
    changed_finder_recipe,
    changed_recipe,
    finder_recipe_for_store,
    load_recipe,
    recipe_for_store,
    recipes,
)


def toml(value: Any) -> str:
    """A setting's value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def as_toml(recipe: Recipe) -> str:
    tables = []
    for table in dataclasses.fields(recipe):
        part = getattr(recipe, table.name)
        settings = [f"{f.name} = {toml(getattr(part, f.name))}" for f in dataclasses.fields(part)]
        tables.append("\n".join([f"[{table.name}]", *settings]))
    return "\n".join(tables)


@pytest.mark.parametrize("name", recipes())
def test_every_setting_survives_toml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "copy.toml"
    path.write_text(as_toml(recipe))
    assert load_recipe(str(path)) == recipe


def test_former_names_of_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text("[augment]\ncolour = 0.25\ngrey = 0.125\n")
    augment = load_recipe(str(path)).augment
    assert (augment.color, augment.gray) == (0.25, 0.125)


def test_an_empty_recipe_is_the_default_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert load_recipe(str(path)) == Recipe()


def test_the_packaged_recipes() -> None:
    assert {"debug", "default", "paper"} <= set(recipes())
    paper = load_recipe("paper")
    assert paper.model == ModelConfig()  # the paper's network
    assert paper.train.lr == 3e-4
    assert paper.train.warmup == 1000
    assert load_recipe("default").model.logits == 2
    for name in recipes():
        recipe = load_recipe(name)
        assert recipe.crop_size(0) in (recipe.model.input_size, recipe.train.coarse_size)
        assert recipe.crop_size(recipe.train.steps - 1) == recipe.model.input_size


def test_progressive_resizing() -> None:
    train = TrainConfig(samples=1000, batch=10, coarse_share=0.25, coarse_size=48)
    sizes = [Recipe(train=train).crop_size(step) for step in range(100)]
    assert sizes == [48] * 25 + [96] * 75


LITE = (
    '[model]\nencoder = "efficientnet-lite0"\nwidths = [16, 24, 40, 112]\ndecoder = [8, 8, 8, 8]\n'
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[trian]\nlr = 1", "unknown key 'trian'; there are model, augment, train"),
        ("[train]\nlearning_rate = 1", "train: unknown key 'learning_rate'"),
        ("[train]\nbatch = 1.5", "train: batch must be int, not 1.5"),
        ("[train]\nbatch = true", "train: batch must be int, not True"),
        ("[train]\ncompile = 1", "train: compile must be bool, not 1"),
        ('[train]\nlr = "fast"', "train: lr must be float, not 'fast'"),
        ("[train]\nlr = true", "train: lr must be float"),
        ("[train]\nviews = { box = 'much' }", "views must be float, not 'much'"),
        ("[train]\nviews = [1]", "views must be dict"),
        ("[model]\nwidths = [1, 2.5]", "widths must be int, not 2.5"),
        ("[model]\nwidths = 48", "widths must be tuple"),
        ("[augment]\nclick_scale = [0.5]", "click_scale must be tuple"),
        ("train = 5", "train: expected a table of settings, not 5"),
        ("[train]\nlr = 0", "`lr`"),
        ("[train]\nlr = nan", "train: lr must be float, not nan"),
        ("[train]\nclip = nan", "train: clip must be float, not nan"),
        ("[train]\nbatch = 0", "`batch`"),
        ("[train]\nwarmup = -1", "`warmup`"),
        ("[train]\nseed = -1", "`seed`"),
        ("[train]\nema = 1.0", "`ema`"),
        ("[train]\nbce = 0\ndice = 0", "`bce` and `dice`"),
        ("[train]\ncoarse_size = 50", "`coarse_size`"),
        ('[train]\nschedule = "linear"', "`schedule` must be one of cosine, constant"),
        ('[train]\nprecision = "fp16"', "`precision`"),
        ("[train]\nviews = { box = -1 }", "negative"),
        ("[train]\nviews = { box = nan }", "views must be float, not nan"),
        ("[augment]\nrotate = 120", "`rotate`"),
        ("[augment]\ncolor = 2", "`color`"),
        ("[augment]\nbox_growth = 3", "`box_growth`"),
        ("[augment]\nclick_scale = [0.9, 0.2]", "`click_scale`"),
        ("[model]\ninput_size = 100", "`input_size`"),
        ('[model]\nstem = "huge"', "unknown key 'stem'"),
        ('[model]\nencoder = "huge"', "`encoder`"),
        (LITE + "input_size = 112", "multiple of 32"),
        (LITE + "[train]\ncoarse_share = 0.5\ncoarse_size = 48", "of 32"),
        ("lr = ", "is not TOML"),
    ],
)
def test_mistakes(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).strip() or "TOML" in says


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"use debug, default, default-cpu, .*paper, paper-finish, paper-long, .*unet",
    ):
        load_recipe("papper")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(str(tmp_path / "binary.toml"))


def test_a_table_in_code() -> None:
    table = tomllib.loads("[augment]\nflip = 1\nclick_scale = [0.5, 0.5]")
    recipe = from_table(Recipe, table, where="here")
    assert recipe.augment == AugmentConfig(flip=1.0, click_scale=(0.5, 0.5))
    assert isinstance(recipe.augment.flip, float)  # a whole number will do for a fraction


def test_steps_cover_the_samples() -> None:
    assert TrainConfig(samples=100, batch=64).steps == 2
    assert TrainConfig(samples=128, batch=64).steps == 2


@pytest.mark.parametrize("name", recipes())
def test_a_packaged_recipe_trains_on_a_store_of_one_source(name: str) -> None:
    before = changed_recipe(name, ())
    recipe, lacking = recipe_for_store(before, name, (), ["coco"])
    assert set(recipe.train.sources) <= {"coco"}
    assert recipe.guided.by_image == ()
    assert set(lacking) == (set(before.train.sources) | set(before.guided.by_image)) - {"coco"}
    assert recipe.train.sources.get("coco") == before.train.sources.get("coco")


@pytest.mark.parametrize("name", recipes(FinderRecipe))
def test_a_packaged_finder_trains_on_a_store_of_one_source(name: str) -> None:
    before = changed_finder_recipe(name, ())
    recipe, lacking = finder_recipe_for_store(before, name, (), ["coco"])
    assert set(recipe.train.sources) | set(recipe.finder.background) == {"coco"}
    assert "facade" in lacking


def test_sources_that_a_person_weighs_stay(tmp_path: Path) -> None:
    changes = ["train.sources={dogs=2.0}"]
    recipe, lacking = recipe_for_store(changed_recipe("unet", changes), "unet", changes, ["coco"])
    assert (recipe.train.sources, lacking) == ({"dogs": 2.0}, [])
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nsources = { dogs = 2.0 }\n")
    own = changed_recipe(str(path), ())
    assert recipe_for_store(own, str(path), (), ["coco"]) == (own, [])
