"""`picosam2 info`: what a network costs, and what a weights file says of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from pathlib import Path

    from picosam2.models.finder import FinderConfig
    from picosam2.models.network import ModelConfig

_LINE = 88  # characters; longer facts are taken apart or counted


def info(
    *,
    weights: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
    recipe: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
) -> None:
    """Print parameters, multiplications and activation memory, stage by stage.

    Without options it is the network of the paper. The table needs torch; what a weights file
    says of itself does not.

    Args:
        weights: The network in these weights, and what they say of themselves.
        recipe: The network that this recipe trains.
    """
    from picosam2.errors import ConfigError, MissingExtraError, require
    from picosam2.models.views import FINDER
    from picosam2.runtimes.weights import find_weights, finder_file, read_facts, shipped

    if weights is not None and recipe is not None:
        raise ConfigError("weights have a network already: give --weights or --recipe, not both")
    missing = None
    try:
        require("torch", "train")
    except MissingExtraError as error:
        missing = error
        if weights is None and recipe is None and "default" in shipped():
            weights = "default"
    facts = None
    if weights is not None:
        path = finder_file() if weights == FINDER else find_weights(weights)
        facts = read_facts(path)
        _print_facts(path, facts)
        print()
    if missing is None:
        _print_table(_config(facts, recipe))
    elif weights is None:
        raise missing
    else:
        print(f"the table of stages: {missing}")


def _config(facts: dict[str, Any] | None, recipe: str | None) -> ModelConfig | FinderConfig:
    from picosam2._config import from_table
    from picosam2.models.finder import FinderConfig
    from picosam2.models.network import ModelConfig, read_config
    from picosam2.models.views import FINDER
    from picosam2.training.config import load_finder_recipe, load_recipe, trains_finder

    if recipe is not None:
        if trains_finder(recipe):
            return load_finder_recipe(recipe).model
        return load_recipe(recipe).model
    if facts is None:
        return ModelConfig()
    if facts.get("kind") == FINDER:
        return from_table(FinderConfig, facts.get("model"), where="model")
    return read_config(facts.get("model"))


def _print_facts(path: Path, facts: dict[str, Any]) -> None:
    from picosam2._files import sha256_file
    from picosam2.cli._text import size

    print(path.name)
    print(f"  size: {size(path.stat().st_size)}")
    print(f"  sha256: {sha256_file(path)}")
    print("\n".join(_described(facts, "  ")))


def _described(facts: dict[str, Any], indent: str) -> list[str]:
    """Facts a line each; what is too long for one is taken apart, or counted."""
    lines = []
    for key, value in facts.items():
        text = json.dumps(value)
        if len(indent) + len(key) + len(text) + 2 <= _LINE:
            lines.append(f"{indent}{key}: {text}")
        elif isinstance(value, dict):
            lines += [f"{indent}{key}:", *_described(value, f"{indent}  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {len(value)} values")
        else:
            lines.append(f"{indent}{key}: {text[: _LINE - len(indent) - len(key) - 5]}...")
    return lines


def _print_table(config: ModelConfig | FinderConfig) -> None:
    from picosam2.cli._text import columns
    from picosam2.models.costs import stage_costs

    costs = stage_costs(config.build())
    rows = [("stage", "output", "parameters", "MACs (M)", "fp32 (KiB)", "int8 (KiB)")]
    rows += [
        (
            stage.name,
            "x".join(map(str, stage.shape)),
            f"{stage.parameters:,}",
            f"{stage.macs / 1e6:,.2f}",
            f"{stage.bytes(4) / 1024:,.1f}",
            f"{stage.bytes(1) / 1024:,.1f}",
        )
        for stage in costs
    ]
    rows.append(
        (
            "in all",
            "",
            f"{sum(stage.parameters for stage in costs):,}",
            f"{sum(stage.macs for stage in costs) / 1e6:,.1f}",
            f"{sum(stage.bytes(4) for stage in costs) / 1024:,.1f}",
            f"{sum(stage.bytes(1) for stage in costs) / 1024:,.1f}",
        )
    )
    side = config.input_size
    print(f"one crop of {side}x{side}; fp32 and int8: memory of what the stage's layers write")
    print(columns(rows))
