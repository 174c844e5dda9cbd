"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from picosam2.data.store import SourceFiles
    from picosam2.prompts import Prompt

Weights = Annotated[
    str, Parameter(help="Shipped weights by name (`picosam2 weights` lists them), or a file.")
]
Annotations = Annotated[list[tuple[Path, Path]], Parameter(negative=(), metavar="FILE DIR")]
NamedAnnotations = Annotated[
    list[tuple[str, Path, Path]], Parameter(negative=(), metavar="NAME FILE DIR")
]
RuntimeName = Annotated[
    Literal["onnx", "torch", "openvino", "litert", "executorch"],
    Parameter(help="What runs the network; all but onnx are extras."),
]
Flip = Annotated[
    bool,
    Parameter(
        help="Look at every crop mirrored, too: a little better, for twice the time.",
        negative=(),
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    Parameter(
        help="CPU threads for the network; by default as many as this process may use.",
        validator=Number(gte=1),
    ),
]
Tolerance = Annotated[
    float,
    Parameter(
        help="How far outlines may lie from the mask's edge, in pixels; 0 is exact, with more "
        "points. For svg, coco-polygons, yolo and labelme.",
        validator=Number(gte=0, lte=1_000_000),
    ),
]
Points = Annotated[
    list[str] | None,
    Parameter(allow_leading_hyphen=True, negative=(), metavar="X,Y[,LABEL]"),
]
Boxes = Annotated[
    list[str] | None,
    Parameter(allow_leading_hyphen=True, negative=(), metavar="X0,Y0,X1,Y1"),
]
OutputFormat: TypeAlias = Literal[  # as `io.encode.Format`, without what that imports
    "overlay",
    "mask",
    "cutout",
    "json",
    "indexed",
    "ids",
    "svg",
    "coco",
    "coco-polygons",
    "yolo",
    "labelme",
]
BoxesFormat: TypeAlias = Literal[  # as `io.prompt_files.BoxesFormat`
    "coco", "yolo", "yolo-boxes", "yolo-polygons", "labelme"
]
Out = Annotated[
    Path | None,
    Parameter(name=["--out", "-o"], allow_leading_hyphen=True, metavar="DIR|FILE|-"),
]


def read_prompts(
    points: Sequence[str],
    boxes: Sequence[str],
    one_object: bool | None,
    mask: Path | None = None,
) -> list[Prompt]:
    """The prompts that options mean; `one_object` None leaves it to the labels.

    A mask makes all prompts one object.

    Raises:
        PromptError: there is none, one is malformed, or one object has two boxes.
        ConfigError: a mask is given, and `one_object` is False.
        DataError: the mask cannot be read.
    """
    from picosam2.prompts import Box, Point, Prompt, as_prompts

    clicks = [Point.parse(text) for text in points]
    rectangles = [Box.parse(text) for text in boxes]
    if not clicks and not rectangles and mask is None:
        raise PromptError("nothing is pointed at: add --point X,Y or --box X0,Y0,X1,Y1")
    if mask is not None and one_object is False:
        raise ConfigError("the points with a --mask correct that mask: leave out --separate")
    if one_object is None:
        one_object = mask is not None or not all(click.positive for click in clicks)
    if not one_object:
        return as_prompts(clicks, rectangles)
    if len(rectangles) > 1:
        because = "a --mask makes" if mask is not None else "points with LABEL 0 make"
        raise PromptError(
            f"one object has one box, not {len(rectangles)}: give the others in another call "
            f"({because} all prompts one object)"
        )
    box = rectangles[0] if rectangles else None
    if mask is None:
        return [Prompt(tuple(clicks), box)]
    from picosam2.io.mask_file import read_mask_file

    return [Prompt(tuple(clicks), box, read_mask_file(mask))]


def given_sources(
    coco: Sequence[tuple[Path, Path]] | None,
    lvis: Sequence[tuple[Path, Path]] | None,
    other: Sequence[tuple[str, Path, Path]] | None,
    *,
    to: str,
) -> list[SourceFiles]:
    """What `--coco`, `--lvis` and `--source` name, for a command that wants it `to` do something.

    Raises:
        ConfigError: they name nothing.
        DataError: a file or a folder is missing.
    """
    from picosam2.cli._targets import check_sources
    from picosam2.data.store import SourceFiles

    sources = [
        SourceFiles(annotations=file, images=folder, dataset=kind, name=kind)
        for kind, pairs in (("coco", coco), ("lvis", lvis))
        for file, folder in pairs or ()
    ]
    sources += [
        SourceFiles(annotations=file, images=folder, dataset="coco", name=name)
        for name, file, folder in other or ()
    ]
    check_sources(*((each.annotations, each.images) for each in sources))
    if not sources:
        raise ConfigError(f"there is nothing to {to}: add --coco FILE DIR, --lvis or --source")
    return sources
