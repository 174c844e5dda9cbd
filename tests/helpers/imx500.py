"""Programs that stand in for Sony's toolkit and converter, and other scripts.

They are shell and Python scripts, so that what is tested is how real programs are started, listened
to and ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

from picosam2.export.imx500.environment import Environment, Java


def write_script(path: Path, text: str) -> Path:
    """A program that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


FAKE_WORKER = """
import json, sys
import numpy as np
import onnx
from onnx import TensorProto, helper

request = json.load(sys.stdin)
crops = np.load(request["calibration"])
state = np.load(request["weights"])
print(json.dumps({"progress": "calibrating", "done": len(crops), "total": len(crops)}), flush=True)
print("a library's complaint", file=sys.stderr)
size, channels = request["model"]["input_size"], request["model"]["logits"]
value = helper.make_tensor_value_info
nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
         helper.make_node("Concat", ["mean"] * channels, ["logits"], axis=1)]
graph = helper.make_graph(
    nodes, "fake",
    [value("image", TensorProto.FLOAT, ["batch", 3, size, size])],
    [value("logits", TensorProto.FLOAT, ["batch", channels, size, size])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
for name in ("converted", "simulated"):
    onnx.save(model, request[name])
same = {"largest": 0.0, "rms": 0.0, "share": 0.0}
print(json.dumps({"result": {
    "versions": {"torch": "2.13.0", "model-compression-toolkit": "2.5.1"},
    "bits": {"8": len(state.files)},
    "compared": 8,
    "outputs": {"logits": {
        "shape": [channels, size, size], "step": 0.125, "lowest": -4.0, "highest": 4.0,
        "rms_error": 0.1, "converted": {"largest": 0.125, "share": 0.001}, "simulated": SIMULATED,
    }},
}}), flush=True)
"""

DNN_PARAMS = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<dnnParams>
  <networks>
    <network name="picosam2" ordinal="0" type="">
      <inputTensors>
        <inputTensor persistency="1" ordinal="0" name="image" numOfDimensions="3"
                     bitsPerElement="8" shift="0" scale="1.0" format="unsigned">
          <dimensions>
            <dimension size="3" serializationOrder="2" ordinal="0" padding="0"/>
            <dimension size="96" serializationOrder="1" ordinal="1" padding="0"/>
            <dimension size="96" serializationOrder="0" ordinal="2" padding="0"/>
          </dimensions>
        </inputTensor>
      </inputTensors>
      <outputTensors>
        <outputTensor ordinal="1" name="iou" numOfDimensions="1"
                      bitsPerElement="8" shift="0" scale="9.765625E-4" format="signed">
          <dimensions>
            <dimension size="2" serializationOrder="0" ordinal="0" padding="0"/>
          </dimensions>
        </outputTensor>
        <outputTensor ordinal="0" name="logits" numOfDimensions="3"
                      bitsPerElement="8" shift="0" scale="0.125" format="signed">
          <dimensions>
            <dimension size="96" serializationOrder="1" ordinal="1" padding="0"/>
            <dimension size="2" serializationOrder="0" ordinal="0" padding="0"/>
            <dimension size="96" serializationOrder="2" ordinal="2" padding="0"/>
          </dimensions>
        </outputTensor>
      </outputTensors>
    </network>
  </networks>
  <l2memory totalSize="8388480" coefficientsSize="1323392" reservedMemorySize="1024"
            networksRuntimeSize="2403424"/>
</dnnParams>
"""
"""The numbers are those of a real conversion of the network of 1,262,859 parameters."""

CONVERTS = f"""
import pathlib, sys, zipfile
assert sys.argv[1] == "-i" and sys.argv[3] == "-o", sys.argv
assert pathlib.Path(sys.argv[2]).is_file()
out = pathlib.Path(sys.argv[4])
out.mkdir()
print("INFO : CODE: [START] Starting SDSPconv")
print("INFO : ConvFe conversion finished successfully")
print("INFO : Converter Backend successfully completed!", flush=True)
(out / "dnnParams.xml").write_text('''{DNN_PARAMS}''')
with zipfile.ZipFile(out / "packerOut.zip", "w") as zip:
    zip.writestr("manifest.json", "{{}}")
"""


class FakeTools:
    """An environment whose programs do as they are told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.root = folder
        self.environment = Environment(folder=folder / "environment")
        self.java = Java(version="17.0.15", folder=folder)
        self.worker(FAKE_WORKER.replace("SIMULATED", "same"))
        self.converter(CONVERTS)

    def worker(self, text: str) -> None:
        """What the worker is to do, in Python."""
        script = self.root / "worker.py"
        script.write_text(text)
        write_script(self.environment.python, f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')

    def converter(self, text: str) -> None:
        """What the converter is to do, in Python."""
        script = self.root / "converter.py"
        script.write_text(text)
        write_script(
            self.environment.converter, f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n'
        )
