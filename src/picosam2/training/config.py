"""Recipes: the settings of a training. TOML tables: model, augment, train, distill, guided."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from picosam2._config import from_table
from picosam2.data.augment import AugmentConfig
from picosam2.errors import ConfigError
from picosam2.models.encoders import ENCODERS
from picosam2.models.finder import FinderConfig
from picosam2.models.network import ModelConfig
from picosam2.training.finder_views import FinderTraining
from picosam2.training.losses import DistillConfig
from picosam2.training.sessions import GuidedConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is trained."""

    samples: int = 400_000
    """Training samples in all."""
    batch: int = 64
    """Samples in one step, over all processes."""
    lr: float = 3e-3
    """Highest learning rate of AdamW."""
    final_lr: float = 0.01
    """Learning rate at the end, as a share of the highest."""
    warmup: int = 300
    """Steps of linear warm-up."""
    schedule: str = "cosine"
    """After the warm-up: cosine, or constant."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on weights of two and more dimensions."""
    clip: float = 1.0
    """Largest gradient norm; 0 leaves it as it is."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is validated and shipped; 0: none."""
    bce: float = 1.0
    """Weight of the binary cross-entropy."""
    balanced: bool = False
    """Whether object and background weigh the same in it."""
    dice: float = 1.0
    """Weight of the Dice loss."""
    views: dict[str, float] = field(default_factory=dict)
    """Views to train on, with their share of the samples; empty: all of the store's, equally."""
    sources: dict[str, float] = field(default_factory=dict)
    """How often an object of a source is drawn, against 1 for the sources not named."""
    whole_epochs: bool = False
    """Every view once an epoch, in random order, instead of drawing with replacement."""
    imagenet: bool = False
    """Start the encoder from its ImageNet weights, for an encoder that has some."""
    coarse_size: int = 64
    """Side of the crops in the first `coarse_share` of the steps: smaller is faster."""
    coarse_share: float = 0.0
    """Share of the steps, from the first, at `coarse_size` (progressive resizing)."""
    seed: int = 0
    """Seed of the weights, the order and the augmentation."""
    precision: str = "bf16"
    """bf16 (autocast), which a processor without AVX-512 computes in fp32, or fp32."""
    channels_last: bool = True
    """Keep activations channel by channel of a pixel; else plane by plane."""
    compile: bool = False
    """Compile the model with torch.compile."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    save_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 1000
    """Steps between validations; 0: only at the end."""
    validation_photos: int = 60
    """Images of the store's validation part to measure on during the run; 0: all."""

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1")
        for name in ("warmup", "clip", "weight_decay", "validate_every", "validation_photos"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError("`seed` must be from 0 to 4294967295")
        if min(self.bce, self.dice) < 0 or not self.bce + self.dice > 0:
            raise ConfigError(
                "the losses' weights must not be negative, nor `bce` and `dice` both 0"
            )
        if not 0 < self.lr <= 1 or not 0 <= self.final_lr <= 1 or not 0 <= self.ema < 1:
            raise ConfigError("`lr` must be in (0, 1], `final_lr` in [0, 1], `ema` in [0, 1)")
        if self.coarse_size < 16 or self.coarse_size % 16 or not 0 <= self.coarse_share <= 1:
            raise ConfigError("`coarse_size` must be a multiple of 16, `coarse_share` in [0, 1]")
        for name, known in (("schedule", ("cosine", "constant")), ("precision", ("bf16", "fp32"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")
        if any(share < 0 for share in (*self.views.values(), *self.sources.values())):
            raise ConfigError("the shares in `views` and `sources` must not be negative")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return -(-self.samples // self.batch)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training: the network, its augmentation, losses and schedule."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    guided: GuidedConfig = field(default_factory=GuidedConfig)

    def __post_init__(self) -> None:
        if self.train.coarse_share and self.train.coarse_size % self.model.unit:
            raise ConfigError(
                f"`coarse_size` must be a multiple of {self.model.unit} for this network"
            )
        if self.train.imagenet and not ENCODERS[self.model.encoder].pretrained:
            raise ConfigError(f"the encoder {self.model.encoder} has no `imagenet` weights")

    def crop_size(self, step: int) -> int:
        """Side of the crops at a step, from 0."""
        early = step < self.train.coarse_share * self.train.steps
        return self.train.coarse_size if early else self.model.input_size


@dataclass(frozen=True, kw_only=True)
class FinderRecipe:
    """The training of a finder (`models.finder`), which sees whole images."""

    model: FinderConfig = field(default_factory=FinderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    finder: FinderTraining = field(default_factory=FinderTraining)


_Recipe = TypeVar("_Recipe", Recipe, FinderRecipe)


def load_recipe(name: str) -> Recipe:
    """The packaged recipe of that name, or the one in a TOML file.

    Raises:
        ConfigError: no such recipe, not TOML, one of a finder, an unknown key or an impossible
            value.
    """
    return _load(name, Recipe)


def load_finder_recipe(name: str) -> FinderRecipe:
    """The recipe of a finder, like `load_recipe`."""
    return _load(name, FinderRecipe)


def _load(name: str, kind: type[_Recipe]) -> _Recipe:
    table = _table(name)
    if _trains_finder(table) != (kind is FinderRecipe):
        wanted, other = ("finder", "segmenter")[:: 1 if kind is FinderRecipe else -1]
        raise ConfigError(f"the recipe {name} trains a {other}, and a {wanted} is needed here")
    return from_table(kind, table, where=name)


def trains_finder(name: str) -> bool:
    """Whether a recipe trains a finder: it has a table `finder`. `ConfigError` as `load_recipe`."""
    return _trains_finder(_table(name))


def _trains_finder(table: Mapping[str, Any]) -> bool:
    return "finder" in table


def _table(name: str) -> dict[str, Any]:
    """The TOML table of a recipe."""
    packaged = resources.files("picosam2") / "recipes" / f"{name}.toml"
    path = Path(name)
    try:
        if path.suffix == ".toml":
            return tomllib.loads(path.read_text())
        if packaged.is_file():
            return tomllib.loads(packaged.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {name} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the recipe {name} is not TOML: {error}") from error
    known = ", ".join((*recipes(), *recipes(FinderRecipe)))
    raise ConfigError(f"there is no recipe {name!r}: use {known} or a .toml")


def recipes(kind: type[Recipe] | type[FinderRecipe] = Recipe) -> list[str]:
    """The names of the packaged recipes that train a segmenter, or a finder."""
    folder = resources.files("picosam2") / "recipes"
    names = [f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")]
    return sorted(name for name in names if trains_finder(name) == (kind is FinderRecipe))


def changed_recipe(name: str, changes: Sequence[str]) -> Recipe:
    """A recipe with `table.key=value` settings changed; values are written as in TOML.

    Raises:
        ConfigError: no such recipe or setting, or a value that it cannot have.
    """
    return _changed(load_recipe(name), changes)


def changed_finder_recipe(name: str, changes: Sequence[str]) -> FinderRecipe:
    """The recipe of a finder with settings changed, like `changed_recipe`."""
    return _changed(load_finder_recipe(name), changes)


def recipe_for_store(
    recipe: Recipe, name: str, changes: Sequence[str], known: Collection[str]
) -> tuple[Recipe, list[str]]:
    """A packaged recipe without the sources that a store lacks, and their names.

    Packaged recipes weigh the sources that the shipped weights were trained on. What a person
    weighs, in a recipe file or in one of `changes`, stays, and is refused where it is not there.

    Args:
        name: of the recipe, as `changed_recipe` was given it, with its changes.
        known: the sources of the store.
    """
    train, lacking = _train_for_store(recipe.train, name, changes, known)
    guided = recipe.guided
    if _is_packaged(name, changes, "guided.by_image"):
        lacking |= set(guided.by_image) - set(known)
        there = tuple(source for source in guided.by_image if source in known)
        guided = replace(guided, by_image=there)
    return replace(recipe, train=train, guided=guided), sorted(lacking)


def finder_recipe_for_store(
    recipe: FinderRecipe, name: str, changes: Sequence[str], known: Collection[str]
) -> tuple[FinderRecipe, list[str]]:
    """The recipe of a finder without the sources that a store lacks, like `recipe_for_store`."""
    train, lacking = _train_for_store(recipe.train, name, changes, known)
    finder = recipe.finder
    if _is_packaged(name, changes, "finder.background"):
        lacking |= set(finder.background) - set(known)
        there = {name: share for name, share in finder.background.items() if name in known}
        finder = replace(finder, background=there)
    return replace(recipe, train=train, finder=finder), sorted(lacking)


def _train_for_store(
    train: TrainConfig, name: str, changes: Sequence[str], known: Collection[str]
) -> tuple[TrainConfig, set[str]]:
    """The settings of a training without the sources that are not there, and their names."""
    if not _is_packaged(name, changes, "train.sources"):
        return train, set()
    there = {source: share for source, share in train.sources.items() if source in known}
    return replace(train, sources=there), set(train.sources) - set(known)


def _is_packaged(name: str, changes: Sequence[str], key: str) -> bool:
    """Whether a setting is that of a packaged recipe."""
    return Path(name).suffix != ".toml" and all(
        change.partition("=")[0].strip() != key for change in changes
    )


def _changed(recipe: _Recipe, changes: Sequence[str]) -> _Recipe:
    if not changes:
        return recipe
    table: dict[str, Any] = asdict(recipe)
    for change in changes:
        key, equals, value = change.partition("=")
        *parents, last = (part.strip() for part in key.split("."))
        if not equals or not parents or not last:
            raise ConfigError(
                f"--set {change} changes nothing: write, for instance, train.lr=0.001"
            )
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {change}: {parent} is one value, not a table")
        place[last] = _toml_value(value.strip())
    return from_table(type(recipe), table, where="--set")


def _toml_value(text: str) -> Any:
    """A value read as TOML; text that is no TOML value is taken as a string without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
