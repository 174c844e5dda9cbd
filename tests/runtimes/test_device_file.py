"""Models with their facts behind them: what is written is read, and any unzip reads the facts."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers.configs import CONFIGS, golden
from hypothesis import given
from hypothesis import strategies as st

from picosam2.errors import WeightsError
from picosam2.runtimes import device_file as module
from picosam2.runtimes.device_file import MEMBER, device_file, read_device_file
from picosam2.runtimes.weights import DEVICE_FILES, read_facts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    model=st.binary(max_size=300),
    facts=st.dictionaries(st.text().filter(lambda key: key != "file"), JSON, max_size=4),
)
def test_what_is_sealed_is_read(
    model: bytes, facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "sealed.tflite"
    path.write_bytes(device_file(model, facts, {"runtime": "litert", "input": "a crop"}))
    contents = read_device_file(path, "litert")
    assert contents.model == model
    file = contents.facts.pop("file")
    assert contents.facts == facts
    assert (file["runtime"], file["input"]) == ("litert", "a crop")


def test_a_model_that_ends_in_a_zip_of_its_own(tmp_path: Path) -> None:
    """The last ZIP is ours; what lies before it is the model."""
    inner = device_file(b"inner", {}, {"runtime": "executorch"})
    path = tmp_path / "x.tflite"
    path.write_bytes(device_file(inner, {"a": 1}, {"runtime": "litert"}))
    contents = read_device_file(path, "litert")
    assert contents.model == inner
    assert contents.facts["a"] == 1


def test_any_unzip_reads_the_facts(tmp_path: Path) -> None:
    path = tmp_path / "x.pte"
    path.write_bytes(device_file(b"model" * 99, {"a": [1, 2]}, {"runtime": "executorch"}))
    assert path.read_bytes().startswith(b"model" * 99)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MEMBER]
        assert json.loads(archive.read(MEMBER))["a"] == [1, 2]


def test_the_same_gives_the_same_bytes() -> None:
    first = device_file(b"model", {"a": 1, "b": 2}, {"runtime": "litert"})
    assert first == device_file(b"model", {"b": 2, "a": 1}, {"runtime": "litert"})


def test_facts_without_end_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(device_file(b"model", {"long": "a" * 5000}, {"runtime": "litert"}))
    read_device_file(path, "litert")
    monkeypatch.setattr(module, "MAX_BYTES", 4000)
    with pytest.raises(WeightsError, match="is not a PicoSAM2 model for litert"):
        read_device_file(path, "litert")


@pytest.mark.parametrize("facts", ["[]", "7", "{}", '{"file": 3}', '{"file": {}}', "{", "\xff"])
def test_a_zip_with_other_facts(facts: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, facts)
    with pytest.raises(WeightsError, match="is not a PicoSAM2 model for litert"):
        read_device_file(path, "litert")


@pytest.mark.parametrize("ending", sorted(DEVICE_FILES))
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_facts_need_no_runtime(name: str, ending: str) -> None:
    facts = read_facts(golden(name, ending))
    assert facts["name"] == name
    assert facts["input_size"] == CONFIGS[name].input_size
    assert facts["file"]["runtime"] == DEVICE_FILES[ending]
    assert facts["preprocessing"]["range"] == [0, 255]
