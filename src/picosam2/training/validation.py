"""Validation during a training: the averaged weights, on whole images it never trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from picosam2.data.coco import AnnotatedImage
from picosam2.data.held_out import held_out_images
from picosam2.data.split import spread
from picosam2.data.store import Store
from picosam2.evaluation.run import evaluate
from picosam2.models.network import PicoSAM2
from picosam2.predictor import Predictor
from picosam2.runtimes.torch import TorchRuntime
from picosam2.training.config import Recipe
from picosam2.training.figures import draw_validation
from picosam2.training.trainer import window_rules


class Validation:
    """Measures a model by the protocols `box` and `click` on images of a store's validation part.

    Call it with a model to get plain numbers: box_miou, click_miou, click_best (mIoU of the best
    candidate by truth), objects and images.
    """

    def __init__(self, store: Store, recipe: Recipe, figure: Path | None = None) -> None:
        """Choose the images: `validation_photos` of the recipe, spread evenly over all of them.

        Args:
            figure: where to draw the same few objects after each measurement (.png).

        Raises:
            DataError: the store's validation part cannot be read.
        """
        usable: tuple[AnnotatedImage, ...] = ()
        if any(image["validation"] for image in store.image_entries):
            usable = held_out_images(store.path)
        self.images = spread(usable, recipe.train.validation_photos)
        self._figure = figure
        # Weights that only ever saw the image's own pixels are asked for the same.
        trained = recipe.train.views or dict.fromkeys(store.view_names, 1.0)
        views = {name for name, share in trained.items() if share > 0}
        self._facts: dict[str, Any] = {"geometry": window_rules(recipe)}
        if views == {"native"}:
            self._facts["click_windows"] = "native"

    def __call__(self, model: PicoSAM2) -> dict[str, Any]:
        """Measure `model`, and draw the figure."""
        predictor = Predictor(TorchRuntime(model, facts=self._facts))
        box = evaluate(predictor, self.images, protocol="box")
        click = evaluate(predictor, self.images, protocol="click")
        if self._figure is not None:
            draw_validation(predictor, self.images, self._figure)
        return {
            "box_miou": float(box.column("iou").mean()),
            "click_miou": float(click.column("iou").mean()),
            "click_best": float(click.column("best").mean()),
            "objects": len(box.measured),
            "photos": len(self.images),
        }
