"""ONNX files are read as bytes: metadata, hash, and tensors that lie in other files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from picosam2.errors import WeightsError
from picosam2.runtimes.metadata import METADATA_KEY
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.onnx_file import (
    HASH_KEY,
    operators,
    read_metadata,
    read_onnx,
    seal_onnx,
    with_metadata,
)
from picosam2.runtimes.ort import import_onnxruntime
from picosam2.runtimes.weights import find_weights, shipped

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FACTS = {"input_size": 8, "channels": 3}


def model(weight: TensorProto | None = None, *, shape: tuple[object, ...] = ("b", 3, 8, 8)):  # type: ignore[no-untyped-def]
    """Adds a constant to the crop."""
    weight = weight or numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "weight")
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["image", "weight"], ["logits"])],
            "graph",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
            [weight],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def external(location: str = "../../etc/passwd") -> TensorProto:
    tensor = TensorProto(
        name="weight", data_type=TensorProto.FLOAT, dims=[1, 3, 8, 8], data_location=1
    )
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_metadata_is_written_read_and_replaced(tmp_path: Path) -> None:
    plain = model().SerializeToString()
    assert read_onnx(plain).metadata is None
    first = with_metadata(plain, FACTS)
    second = with_metadata(first, {**FACTS, "name": "other"})
    parsed = onnx.load_from_string(second)
    (entry,) = parsed.metadata_props
    assert entry.key == METADATA_KEY
    assert json.loads(entry.value) == {**FACTS, "name": "other", HASH_KEY: read_onnx(plain).sha256}
    assert read_metadata(second) == entry.value
    assert parsed.graph == onnx.load_from_string(plain).graph
    assert "name" not in OnnxRuntime(write(tmp_path / "a.onnx", first)).info.facts
    assert HASH_KEY not in OnnxRuntime(write(tmp_path / "b.onnx", second)).info.facts


def test_sealing_adds_the_hash_to_what_is_there() -> None:
    described = model()
    helper.set_model_props(described, {METADATA_KEY: json.dumps(FACTS), "author": "someone"})
    sealed = seal_onnx(described.SerializeToString())
    props = {entry.key: entry.value for entry in onnx.load_from_string(sealed).metadata_props}
    assert props["author"] == "someone"
    assert json.loads(props[METADATA_KEY])[HASH_KEY] == read_onnx(sealed).sha256
    assert seal_onnx(sealed) == sealed
    with pytest.raises(WeightsError, match="no metadata of ours"):
        seal_onnx(model().SerializeToString())


def test_every_damaged_byte_of_the_graph_is_noticed(tmp_path: Path) -> None:
    whole = with_metadata(model().SerializeToString(), FACTS)
    graph = len(model().SerializeToString())
    for position in range(0, graph, 7):
        data = bytearray(whole)
        data[position] ^= 4
        with pytest.raises(WeightsError):
            OnnxRuntime(write(tmp_path / "damaged.onnx", bytes(data)))


def test_a_file_without_a_hash_is_an_older_one_of_ours(tmp_path: Path) -> None:
    described = model()
    helper.set_model_props(described, {METADATA_KEY: json.dumps(FACTS)})
    runtime = OnnxRuntime(write(tmp_path / "old.onnx", described.SerializeToString()))
    assert runtime(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 3, 8, 8)


def nested() -> bytes:
    """The tensor lies in an attribute of a node in a branch of an If."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external())], "then", [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    altered = model()
    altered.graph.node.append(
        helper.make_node("If", ["condition"], ["x"], then_branch=inner, else_branch=inner)
    )
    return bytes(altered.SerializeToString())


def in_a_function() -> bytes:
    altered = model()
    altered.functions.append(
        helper.make_function(
            "d", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=external())],
            [helper.make_opsetid("", 17)],
        )
    )  # fmt: skip
    return bytes(altered.SerializeToString())


def sparse() -> bytes:
    altered = model()
    altered.graph.sparse_initializer.add().values.CopyFrom(external())
    return bytes(altered.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [model(external()).SerializeToString(), nested(), in_a_function(), sparse()],
    ids=["initializer", "branch", "function", "sparse"],
)
def test_tensors_in_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="keeps tensors in other files"):
        read_onnx(data)
    entry = helper.make_model(helper.make_graph([], "g", [], []))
    bare = len(entry.SerializeToString())
    helper.set_model_props(entry, {METADATA_KEY: json.dumps(FACTS)})
    props = entry.SerializeToString()[bare:]
    with pytest.raises(WeightsError, match="keeps tensors in other files"):
        OnnxRuntime(write(tmp_path / "m.onnx", data + props))


def test_onnx_runtime_refuses_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its oldest release that pyproject.toml allows is the first that does so, also for bytes."""
    (tmp_path / "secret").write_bytes(np.full((1, 3, 8, 8), 7, np.float32).tobytes())
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    data = model(external("../../secret")).SerializeToString()
    path = write(folder / "m.onnx", data)
    for source in (str(path), data):
        with pytest.raises(Exception, match="escapes"):
            import_onnxruntime().InferenceSession(source, providers=["CPUExecutionProvider"])
    (folder / "beside").write_bytes((tmp_path / "secret").read_bytes())
    beside = model(external("beside")).SerializeToString()
    import_onnxruntime().InferenceSession(beside, providers=["CPUExecutionProvider"])


def test_logits_of_another_shape_are_refused(tmp_path: Path) -> None:
    wrong = with_metadata(model(shape=("b", 3, 8, 8)).SerializeToString(), {**FACTS, "channels": 2})
    with pytest.raises(WeightsError, match="does not take crops of 8 pixels to logits"):
        OnnxRuntime(write(tmp_path / "static.onnx", wrong))


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 4096, b"\x0b" * 9,
     b"\x08\x01" * 2_000_000, (b"\x3a\x02" + b"\x0a\x00") * 900_000],
    ids=["cut", "longer than long", "noise", "groups", "many fields", "many graphs"],
)  # fmt: skip
def test_hostile_bytes_are_refused_at_once(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(WeightsError):
        read_onnx(data)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", shipped())
def test_the_shipped_files_have_far_fewer_parts_than_the_limit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picosam2.runtimes.onnx_file._MAX_FIELDS", 50_000)
    assert read_onnx(find_weights(name).read_bytes()).metadata is not None


def test_operators_are_those_that_onnx_reads():
    onnx = pytest.importorskip("onnx")
    for name in ("default", "default-int8"):
        path = find_weights(name)
        nodes = onnx.load(path).graph.node
        assert operators(path.read_bytes()) == {node.op_type for node in nodes}
