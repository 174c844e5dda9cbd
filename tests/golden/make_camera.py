"""Record what a sensor would answer: `python -m tests.golden.make_camera` from the repository.

A session runs over the sample image, standing still, with the shipped weights; every answer is
kept as the 8-bit integers that the sensor sends, beside the ROI it belongs to.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from picosam2.apps.camera.sensor import SENSOR_SIZE, AiCamera
from picosam2.apps.camera.session import Session
from picosam2.apps.camera.simulated import SimulatedSensor, eight_bit
from picosam2.io.sample_image import sample, sample_objects
from picosam2.predictor import Predictor
from picosam2.runtimes.weights import find_weights

RECORDED = Path(__file__).with_name("camera.npz")
CLICKED, BOXED = "apple", "mug"
STEPS = 60


def main() -> None:
    predictor = Predictor("default", threads=1)
    kept: dict[tuple[int, ...], np.ndarray] = {}

    def network(crop: np.ndarray) -> np.ndarray:
        logits = predictor.runtime(crop[None])[0]
        if tuple(sensor.roi) != (0, 0, *SENSOR_SIZE):  # before the first prompt
            kept[tuple(sensor.roi)] = eight_bit(logits)
        return logits

    objects = {sample_object.name: sample_object for sample_object in sample_objects()}
    for name in (CLICKED, BOXED):
        image = sample()
        side = predictor.runtime.info.input_size
        sensor = SimulatedSensor(lambda _, image=image: image, network, side=side)
        camera = AiCamera(find_weights("default"), predictor.runtime.info, devices=sensor.devices)
        session = Session(camera, predictor)
        session.step()
        if name == CLICKED:
            session.point(objects[name].point)
        else:
            session.box(objects[name].box)
        for _ in range(STEPS):
            session.step()
    np.savez_compressed(RECORDED, rois=np.array(list(kept)), answers=np.stack(list(kept.values())))
    print(f"{RECORDED}: {len(kept)} answers, {RECORDED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
