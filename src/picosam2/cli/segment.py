"""`picosam2 segment`: photos and prompts in; pictures, masks or JSON out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from picosam2.cli._options import Flip, RuntimeName, Threads, Weights
from picosam2.cli._outputs import ENDINGS, PER_OBJECT, Format, Tolerance, as_json, encode, tail
from picosam2.errors import ConfigError, ImageError, PicoSAM2Error, PromptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from picosam2.predictor import Predictor
    from picosam2.prompts import Prompt
    from picosam2.results import Segmentation

SAMPLE = "sample"
"""The word that means the bundled picture, where no file has that name."""

_TOLD = 10  # scores that are printed one by one

STREAM = "-"
"""Standard input as a photo, standard output as a place."""


def segment(
    *photos: Annotated[Path, Parameter(name="PHOTO", allow_leading_hyphen=True)],
    point: Annotated[
        list[str] | None,
        Parameter(allow_leading_hyphen=True, negative=(), metavar="X,Y[,LABEL]"),
    ] = None,
    box: Annotated[
        list[str] | None,
        Parameter(allow_leading_hyphen=True, negative=(), metavar="X0,Y0,X1,Y1"),
    ] = None,
    one_object: Annotated[bool | None, Parameter(negative="--separate")] = None,
    prompts: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    boxes: Annotated[Path | None, Parameter(metavar="FILE|DIR")] = None,
    boxes_format: Literal["coco", "yolo", "labelme"] | None = None,
    multimask: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], allow_leading_hyphen=True, metavar="DIR|FILE|-"),
    ] = None,
    format: Annotated[Format | None, Parameter(name=["--format", "-f"])] = None,
    tolerance: Tolerance = 1.0,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    weights: Weights = "default",
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
    flip: Flip = False,
) -> int:
    """Make masks of what points and boxes show in photos.

    Coordinates are pixels from the top left. Each point and each box means one object, so three
    points give three masks; but once a point has LABEL 0 ("not this"), all points and the box
    together mean one object.

    Files are named after the photo: `cat-overlay.png` has all objects in one picture,
    `cat-mask.png` and `cat-cutout.png` have one object each (`cat-mask-1.png`, `cat-mask-2.png`
    if there are several), `cat.json` has all. A photo that cannot be used is skipped and named at
    the end; the exit code is 2 then.

    A folder, --prompts or --boxes make it a run over many photos, on all cores. It leaves out what
    is done already, so that it can be stopped and started again, and COCO becomes one file:
    `picosam2 segment photos/ --boxes detections.json --format coco --out masks.json`.

    Args:
        photos: Pictures, or folders of them; `-` reads one from standard input, and the word
            `sample` is the bundled one.
        point: A click on the object (LABEL 1, or none) or on what does not belong to it (0).
            Repeatable.
        box: The object's left, top, right and bottom. Repeatable.
        one_object: All points and the box mean one object, or each means its own, whatever the
            labels.
        prompts: JSON or CSV with the points and boxes of many photos: image, object, class, points
            or x, y and label, box or x0, y0, x1 and y1.
        boxes: A detector's or a label tool's boxes for many photos: a COCO file of annotations or
            results, or a file or folder of YOLO or labelme.
        boxes_format: What --boxes is, where its content does not tell.
        multimask: Three masks of different size for each object without a box, best first.
        out: A folder, a file, or `-` for standard output; by default the current folder.
        format: The photo with the masks drawn on it, the bare mask, the object cut out, or JSON
            with prompt, box, score, area, RLE and polygons; PNGs with the objects' numbers as
            colours (indexed) or in 16 bits (ids); outlines as svg; COCO with RLE or polygons; YOLO
            or labelme labels. By default overlay, or what suits a file's ending.
        overwrite: In a run over many photos, do again what is done.
    """
    if prompts is not None or boxes is not None or any(photo.is_dir() for photo in photos):
        from picosam2.cli.bulk import run, source_of

        if multimask:
            raise ConfigError("--multimask is for photos named one by one, with --point")
        if (point or box) and (prompts is not None or boxes is not None):
            raise ConfigError("give --point and --box, or --prompts, or --boxes, not several")
        everywhere = read_prompts(point or (), box or (), one_object) if point or box else None
        source = source_of(everywhere, prompts, boxes, boxes_format)
        return run(
            photos,
            source,
            out=out,
            format=format,
            tolerance=tolerance,
            overwrite=overwrite,
            weights=str(weights),
            runtime=runtime,
            threads=threads,
            flip=flip,
        )
    names = photo_names(photos)
    asked = read_prompts(point or (), box or (), one_object)
    place = Place(names, out, format)

    from picosam2.predictor import Predictor

    predictor = Predictor(str(weights), runtime=runtime, threads=threads, flip=flip)
    skipped = []
    for name in names:
        try:
            _segment_one(name, asked, predictor, str(weights), place, multimask, tolerance)
        except PicoSAM2Error as error:
            if len(names) == 1:
                raise
            skipped.append(f"{name}: {error}")
    if skipped:
        print(f"picosam2: {len(skipped)} of {len(names)} photos were skipped:", file=sys.stderr)
        print(*(f"  {line}" for line in skipped), sep="\n", file=sys.stderr)
    return 2 if skipped else 0


def read_prompts(
    points: Sequence[str], boxes: Sequence[str], one_object: bool | None
) -> list[Prompt]:
    """The prompts that options mean; `one_object` None leaves it to the labels.

    Raises:
        PromptError: there is none, one is malformed, or one object has two boxes.
    """
    from picosam2.prompts import Box, Point, Prompt, as_prompts

    clicks = [Point.parse(text) for text in points]
    rectangles = [Box.parse(text) for text in boxes]
    if not clicks and not rectangles:
        raise PromptError("nothing is pointed at: add --point X,Y or --box X0,Y0,X1,Y1")
    if one_object is None:
        one_object = not all(click.positive for click in clicks)
    if not one_object:
        return as_prompts(clicks, rectangles)
    if len(rectangles) > 1:
        raise PromptError(
            f"one object has one box, not {len(rectangles)}: give the others in another call "
            "(points with LABEL 0 make all prompts one object)"
        )
    return [Prompt(tuple(clicks), rectangles[0] if rectangles else None)]


def photo_names(photos: Sequence[Path]) -> list[str]:
    """The photos as they were named, once looked over."""
    names = [str(photo) for photo in photos]
    if not names:
        raise ImageError(
            "there is no photo: name one, or write `sample` for the bundled picture, "
            "or - to read one from standard input"
        )
    for name in names:
        # `-` is a photo, so the parser lets everything with a hyphen through.
        if name.startswith("-") and name != STREAM and not Path(name).exists():
            raise ConfigError(f"there is no option {name}: see `picosam2 segment --help`")
    for name in set(names):
        if names.count(name) > 1:
            raise ConfigError(f"the photo {name} is named twice: name it once")
    return names


def read_photo(name: str) -> Any:
    """What `load_image` takes for a photo's name."""
    if name == STREAM:
        return sys.stdin.buffer
    if name == SAMPLE and not Path(name).exists():
        from picosam2.samples import sample_bytes

        return sample_bytes()
    # A path swallows one of the slashes of a web address, which `load_image` looks for.
    return name.replace(":/", "://", 1) if name.startswith(("http:/", "https:/")) else name


class Place:
    """Where results go, and in which form."""

    def __init__(self, names: Sequence[str], out: Path | None, format: Format | None) -> None:
        """Settle it for these photos, or raise `ConfigError` before anything is done."""
        self.stream = str(out) == STREAM
        self._file: Path | None = None
        self._folder = Path()
        if out is not None and not self.stream:
            if out.suffix and not out.is_dir():
                self._file = out
            else:
                self._folder = out
        self.format: Format = format or _usual_format(self._file)
        self._photos = {Path(name).resolve() for name in names}
        self._check(names)

    def _check(self, names: Sequence[str]) -> None:
        endings = ENDINGS[self.format]
        if self._file and self._file.suffix.lower() not in endings:
            raise ConfigError(
                f"{self._file} does not suit {self.format}: end it in {' or '.join(endings)}"
            )
        if self._file and len(names) > 1:
            raise ConfigError(
                f"{len(names)} photos do not fit into one file, {self._file}: give --out a folder"
            )
        if self.stream and ENDINGS[self.format][0] == ".png":
            if len(names) > 1:
                raise ConfigError("standard output takes one picture: name one photo, or use JSON")
            if sys.stdout.isatty():
                raise ConfigError("a terminal shows no picture: send it to a file with > mask.png")
        written: dict[str, str] = {}
        for name in names:
            path = str(self.path(name))
            if path in written:
                raise ConfigError(
                    f"{written[path]} and {name} would both be written to {path}: "
                    "segment them in two calls, each with its own --out"
                )
            written[path] = name

    def path(self, name: str, number: int | None = None) -> Path:
        """The file for a photo, or for one object of several."""
        if self._file:
            base, ending = self._file.with_suffix(""), self._file.suffix
        else:
            stem = "stdin" if name == STREAM else Path(name).stem
            base, ending = self._folder / f"{stem}{tail(self.format)}", ENDINGS[self.format][0]
        numbered = "" if number is None else f"-{number}"
        return base.with_name(f"{base.name}{numbered}{ending}")

    def write(self, path: Path, data: bytes) -> None:
        """Write a result; never over a photo of this call."""
        from picosam2._files import write_bytes

        if self.stream:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if path.resolve() in self._photos:
            raise ConfigError(f"{path} is one of the photos: choose another --out")
        try:
            write_bytes(path, data)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _usual_format(file: Path | None) -> Format:
    """What a file's ending says; else an overlay."""
    usual: dict[str, Format] = {".json": "json", ".svg": "svg", ".txt": "yolo"}
    return usual.get(file.suffix.lower(), "overlay") if file else "overlay"


def _segment_one(
    name: str,
    prompts: Sequence[Prompt],
    predictor: Predictor,
    weights: str,
    place: Place,
    multimask: bool,
    tolerance: float,
) -> None:
    from picosam2.images import load_image

    picture = load_image(read_photo(name))
    found = predictor(picture, prompts=prompts, multimask=multimask)
    write_groups(place, name, weights, predictor, picture, found, multimask, tolerance)


def write_groups(
    place: Place,
    name: str,
    weights: str,
    predictor: Predictor,
    picture: Any,
    found: Sequence[Segmentation],
    apart: bool,
    tolerance: float,
    *,
    prompts: bool = True,
) -> None:
    """Write a photo's objects, to one file or (`apart`, or by format) a file each, and say so."""
    groups: list[Sequence[Segmentation]] = [found]
    if place.format in PER_OBJECT or (apart and place.format == "overlay"):
        groups = [[one] for one in found]
    if place.stream and len(groups) > 1:
        raise ConfigError(
            f"standard output takes one picture, not {len(groups)}: use --format json, or a folder"
        )
    for number, group in enumerate(groups, 1):
        path = place.path(name, number if len(groups) > 1 else None)
        if place.format == "json":
            data = document(name, weights, predictor, picture.shape[:2], group)
        else:
            data = encode(
                place.format,
                name,
                picture,
                group,
                jpeg=path.suffix.lower() in (".jpg", ".jpeg"),
                prompts=prompts,
                tolerance=tolerance,
            )
        place.write(path, data)
        if not place.stream:
            print(f"{path}: {told(group)}")


def document(
    name: str,
    weights: str,
    predictor: Predictor,
    size: tuple[int, ...],
    found: Sequence[Segmentation],
) -> bytes:
    """One line of JSON for one photo."""
    return as_json(
        {
            "image": name,
            "size": list(size),
            "weights": {"name": weights, "sha256": predictor.runtime.info.weights_sha256},
            "masks": [one.to_json() for one in found],
        }
    )


def told(found: Sequence[Segmentation]) -> str:
    if not found:
        return "nothing found"
    scores = " ".join(f"{one.score:.2f}" for one in found)
    if len(found) > _TOLD:
        low, high = min(one.score for one in found), max(one.score for one in found)
        scores = f"{low:.2f} to {high:.2f}"
    if len(found) > 1:
        return f"{len(found)} masks, scores {scores}"
    area = found[0].area
    return f"score {scores}, {area:,} pixels" if area else f"score {scores}, nothing found"
