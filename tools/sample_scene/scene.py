"""The bundled sample image: a table by a window, modelled and rendered with Blender's Cycles.

Everything is made here by formula (no downloaded model, texture or light probe), so the image is
the project's own and every object's visible mask is known exactly. Two renders leave this script:
``render.png``, the photograph, and ``ids.png``, where the red byte of a pixel names the object seen
through its center (no depth of field, no filtering). ``build.py`` turns them into the two assets.

Units are metres; x points right, y away from the camera, z up; the table top is z = 0.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import bpy

# isort: split
import bmesh  # it and mathutils can only be imported once bpy is
import numpy as np
from mathutils import Euler, Matrix, Vector

WIDTH, HEIGHT = 640, 480
ID_STEP = 20  # the gray step between two objects in ids.png
GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))

Color = tuple[float, float, float, float]


def color(text: str) -> Color:
    """Linear RGBA from an sRGB "#rrggbb"."""
    channels = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return (linear[0], linear[1], linear[2], 1.0)


def smoothstep(low, high, value):
    """Hermite step from 0 at `low` to 1 at `high`, elementwise."""
    t = np.clip((np.asarray(value) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


# ---------------------------------------------------------------------------------------- shading


class Shader:
    """A material under construction; each method adds one node and returns its output socket."""

    def __init__(self, name: str):
        self.material = bpy.data.materials.new(name)
        self.tree = self.material.node_tree
        self.tree.nodes.clear()

    def add(self, kind: str, inputs: dict | None = None, **settings):
        """Add a node; `inputs` are constants or sockets, keyed by socket name or number."""
        node = self.tree.nodes.new(kind)
        for key, value in settings.items():
            setattr(node, key, value)
        for key, value in (inputs or {}).items():
            self.feed(node.inputs[key], value)
        return node

    def feed(self, socket, value) -> None:
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def position(self, scale: Sequence[float] = (1, 1, 1), offset=(0, 0, 0)):
        """The object's own coordinates (metres), scaled."""
        coords = self.add("ShaderNodeTexCoord").outputs["Object"]
        return self.add(
            "ShaderNodeMapping", {"Vector": coords, "Scale": scale, "Location": offset}
        ).outputs[0]

    def attribute(self, name: str, output: str = "Fac"):
        """A value stored on the mesh's vertices."""
        return self.add("ShaderNodeAttribute", attribute_name=name).outputs[output]

    def split(self, vector):
        """x, y, z of a vector."""
        return self.add("ShaderNodeSeparateXYZ", {0: vector}).outputs[:3]

    def join(self, x, y, z):
        return self.add("ShaderNodeCombineXYZ", {0: x, 1: y, 2: z}).outputs[0]

    def math(self, operation: str, a, b=0.0, c=0.0):
        return self.add("ShaderNodeMath", {0: a, 1: b, 2: c}, operation=operation).outputs[0]

    def noise(self, vector, scale: float, detail=3.0, roughness=0.5, distortion=0.0):
        """Fractal noise, about 0.2 to 0.8."""
        return self.add(
            "ShaderNodeTexNoise",
            {
                "Vector": vector,
                "Scale": scale,
                "Detail": detail,
                "Roughness": roughness,
                "Distortion": distortion,
            },
        ).outputs[0]

    def cells(self, vector, scale: float):
        """Distance to the nearest of randomly strewn points, in cell sizes."""
        return self.add("ShaderNodeTexVoronoi", {"Vector": vector, "Scale": scale}).outputs[0]

    def ramp(self, factor, stops: Sequence[tuple[float, Color]]):
        """A color gradient over `factor`."""
        node = self.add("ShaderNodeValToRGB", {0: factor})
        elements = node.color_ramp.elements
        while len(elements) < len(stops):
            elements.new(1.0)
        for element, (place, value) in zip(elements, stops, strict=True):
            element.position, element.color = place, value
        return node.outputs[0]

    def step(self, factor, low: float, high: float):
        """0 below `low`, 1 above `high` (either may be the larger), smooth between."""
        return self.add(
            "ShaderNodeMapRange",
            {0: factor, 1: low, 2: high, 3: 0.0, 4: 1.0},
            interpolation_type="SMOOTHSTEP",
        ).outputs[0]

    def mix(self, factor, a, b, blend: str = "MIX"):
        """Color a where factor is 0, b where it is 1."""
        node = self.add("ShaderNodeMix", data_type="RGBA", blend_type=blend)
        sockets = {socket.identifier: socket for socket in node.inputs}
        for key, value in (("Factor_Float", factor), ("A_Color", a), ("B_Color", b)):
            self.feed(sockets[key], value)
        return next(s for s in node.outputs if s.identifier == "Result_Color")

    def bump(self, height, depth: float, strength: float = 1.0, normal=None):
        """A normal bent by a height field whose unit is `depth` metres."""
        inputs = {"Height": height, "Distance": depth, "Strength": strength}
        if normal is not None:
            inputs["Normal"] = normal
        return self.add("ShaderNodeBump", inputs).outputs[0]

    def principled(self, **inputs):
        """Blender's all-round surface; keywords are its socket names with _ for blanks."""
        named = {key.replace("_", " "): value for key, value in inputs.items()}
        return self.add("ShaderNodeBsdfPrincipled", named).outputs[0]

    def surface(self, closure):
        """Finish: `closure` becomes the material's surface."""
        self.add("ShaderNodeOutputMaterial", {"Surface": closure})
        return self.material


def wood_material():
    """Oiled oak boards: growth rings as contour lines of a stretched noise, pores, dark joints."""
    s = Shader("wood")
    board = 0.145
    turned = s.add(
        "ShaderNodeVectorRotate",
        {"Vector": s.position(offset=(0.03, 0.05, 0)), "Angle": math.radians(79)},
        rotation_type="Z_AXIS",
    ).outputs[0]
    x, y, _ = s.split(turned)
    across = s.math("DIVIDE", y, board)
    index = s.math("FLOOR", across)
    chance = s.add("ShaderNodeTexWhiteNoise", {1: index}, noise_dimensions="1D").outputs[0]
    shift = s.math("MULTIPLY", chance, 37.0)
    along = s.math("ADD", x, shift)

    warp = s.noise(
        s.join(s.math("MULTIPLY", along, 2.2), s.math("MULTIPLY", y, 9.0), shift), 1.0, 2
    )
    field = s.noise(
        s.join(s.math("MULTIPLY", along, 0.9), s.math("MULTIPLY", y, 7.5), shift), 1.0, 1.0
    )
    field = s.math("ADD", field, s.math("MULTIPLY", warp, 0.10))
    rings = s.math("PINGPONG", s.math("MULTIPLY", field, 24.0), 1.0)
    rings = s.math("POWER", rings, 1.8)
    fibre = s.noise(
        s.join(s.math("MULTIPLY", along, 5.0), s.math("MULTIPLY", y, 190.0), shift), 1.0, 4, 0.65
    )
    pores = s.noise(
        s.join(s.math("MULTIPLY", along, 26.0), s.math("MULTIPLY", y, 560.0), shift), 1.0, 2
    )
    pores = s.step(pores, 0.60, 0.72)

    grain = s.math("ADD", s.math("MULTIPLY", rings, 0.30), s.math("MULTIPLY", fibre, 0.80))
    base = s.ramp(
        grain,
        [
            (0.16, color("#b98f60")),
            (0.42, color("#9f7245")),
            (0.66, color("#825630")),
            (0.92, color("#5c3b20")),
        ],
    )
    tint = s.ramp(
        chance, [(0.0, color("#d8cfc4")), (0.5, color("#ffffff")), (1.0, color("#e8d2b8"))]
    )
    base = s.mix(0.85, base, tint, "MULTIPLY")
    base = s.mix(s.math("MULTIPLY", pores, 0.45), base, color("#4a2e19"))
    mottle = s.noise(s.position(), 5.0, 4)
    base = s.mix(
        s.math("MULTIPLY", s.step(mottle, 0.45, 0.75), 0.25), base, color("#7d5530"), "MULTIPLY"
    )
    edge = s.math("ABSOLUTE", s.math("SUBTRACT", s.math("FRACT", across), 0.5))
    joint = s.step(edge, 0.4925, 0.4985)
    base = s.mix(s.math("MULTIPLY", joint, 0.85), base, color("#20130a"))

    height = s.math("SUBTRACT", s.math("MULTIPLY", fibre, 0.35), s.math("MULTIPLY", pores, 0.5))
    height = s.math("SUBTRACT", height, s.math("MULTIPLY", joint, 3.0))
    rough = s.math("ADD", 0.38, s.math("MULTIPLY", mottle, 0.22))
    return s.surface(
        s.principled(
            Base_Color=base,
            Roughness=rough,
            Normal=s.bump(height, 0.0004, 0.7),
            Specular_IOR_Level=0.45,
        )
    )


def plaster_material(name: str, tone: str):
    s = Shader(name)
    p = s.position()
    base = s.mix(s.noise(p, 1.3, 4), color(tone), color("#ffffff"), "MULTIPLY")
    base = s.mix(s.math("MULTIPLY", s.noise(p, 2.0, 5), 0.25), base, color("#b9ad9c"), "MULTIPLY")
    return s.surface(
        s.principled(Base_Color=base, Roughness=0.9, Normal=s.bump(s.noise(p, 60.0), 0.0006))
    )


def plain_material(name: str, tone: str, roughness: float = 0.6, **inputs):
    s = Shader(name)
    return s.surface(s.principled(Base_Color=color(tone), Roughness=roughness, **inputs))


def glaze_material():
    """Speckled stoneware: blue glaze outside, cream inside, bare clay at the foot and worn rim."""
    s = Shader("glaze")
    p = s.position()
    _, _, z = s.split(p)
    inside = s.attribute("inside")
    wobble = s.math("MULTIPLY", s.noise(p, 45.0, 2), 0.006)
    pool = s.noise(p, 30.0, 5, 0.6)
    blue = s.ramp(
        pool, [(0.30, color("#16405a")), (0.52, color("#24607d")), (0.75, color("#4f93a8"))]
    )
    base = s.mix(inside, blue, color("#e6ddc9"))
    specks = s.math(
        "MULTIPLY", s.step(s.cells(p, 330.0), 0.24, 0.14), s.step(s.noise(p, 150.0, 2), 0.46, 0.56)
    )
    base = s.mix(s.math("MULTIPLY", specks, 0.75), base, color("#2b1a10"))
    worn = s.step(s.math("ADD", s.attribute("rim"), s.math("MULTIPLY", pool, 0.25)), 0.75, 1.0)
    base = s.mix(s.math("MULTIPLY", worn, 0.8), base, color("#8a5a37"))
    foot = s.math(
        "MULTIPLY",
        s.step(s.math("ADD", z, wobble), 0.0145, 0.0125),
        s.math("SUBTRACT", 1.0, inside),
    )
    clay = s.mix(s.noise(p, 220.0, 3), color("#a98763"), color("#c9ad8a"))
    base = s.mix(foot, base, clay)
    rough = s.math("ADD", 0.10, s.math("MULTIPLY", foot, 0.6))
    height = s.math("SUBTRACT", s.noise(p, 24.0, 2), s.math("MULTIPLY", foot, 0.35))
    return s.surface(
        s.principled(Base_Color=base, Roughness=rough, Normal=s.bump(height, 0.0008, 0.6))
    )


def coffee_material():
    s = Shader("coffee")
    x, y, _ = s.split(s.position())
    radius = s.math("SQRT", s.math("ADD", s.math("MULTIPLY", x, x), s.math("MULTIPLY", y, y)))
    edge = s.math("ADD", radius, s.math("MULTIPLY", s.noise(s.position(), 200.0, 2), 0.004))
    base = s.mix(s.step(edge, 0.0345, 0.0385), color("#24120a"), color("#7a4a26"))
    return s.surface(s.principled(Base_Color=base, Roughness=0.06))


def apple_material():
    """Red skin with paler streaks from pole to pole, a green-yellow hollow, lenticels."""
    s = Shader("apple")
    p = s.position()
    x, y, z = s.split(p)
    turn = s.math("ARCTAN2", y, x)
    streak_at = s.join(
        s.math("MULTIPLY", s.math("COSINE", turn), 3.4),
        s.math("MULTIPLY", s.math("SINE", turn), 3.4),
        s.math("MULTIPLY", z, 9.0),
    )
    streak = s.noise(streak_at, 5.0, 5, 0.65)
    patch = s.noise(p, 22.0, 3)
    red = s.ramp(
        streak,
        [
            (0.30, color("#6f0f14")),
            (0.47, color("#a5161a")),
            (0.60, color("#c0302a")),
            (0.74, color("#d8793f")),
        ],
    )
    blush = s.step(s.math("ADD", patch, s.math("MULTIPLY", streak, 0.35)), 0.68, 0.86)
    base = s.mix(s.math("MULTIPLY", blush, 0.75), red, color("#d9a23c"))
    radius = s.math("SQRT", s.math("ADD", s.math("MULTIPLY", x, x), s.math("MULTIPLY", y, y)))
    hollow = s.step(s.math("ADD", radius, s.math("MULTIPLY", streak, 0.010)), 0.021, 0.011)
    base = s.mix(hollow, base, color("#b8a23e"))
    dots = s.math(
        "MULTIPLY", s.step(s.cells(p, 260.0), 0.22, 0.12), s.step(s.noise(p, 140.0), 0.42, 0.6)
    )
    base = s.mix(s.math("MULTIPLY", dots, 0.55), base, color("#e9c98a"))
    return s.surface(
        s.principled(
            Base_Color=base,
            Roughness=s.math("ADD", 0.26, s.math("MULTIPLY", patch, 0.16)),
            Coat_Weight=0.5,
            Coat_Roughness=0.14,
            Subsurface_Weight=0.12,
            Subsurface_Radius=(0.006, 0.0025, 0.0015),
            Subsurface_Scale=1.0,
            Normal=s.bump(s.noise(p, 90.0, 3), 0.0006, 0.5),
        )
    )


def banana_material():
    """Yellow peel, greener toward stem and tip, ridges, brown freckles, black tip."""
    s = Shader("banana")
    p = s.position()
    t = s.attribute("along")
    mottle = s.noise(p, 35.0, 4)
    base = s.mix(s.step(mottle, 0.4, 0.7), color("#e8bd32"), color("#d9a520"))
    green = s.math("MAXIMUM", s.step(t, 0.30, 0.08), s.step(t, 0.88, 0.99))
    base = s.mix(s.math("MULTIPLY", green, 0.55), base, color("#a7ab3c"))
    ridge = s.math(
        "MULTIPLY",
        s.step(s.attribute("ridge"), 0.86, 1.0),
        s.step(s.noise(p, 120.0, 3), 0.40, 0.62),
    )
    base = s.mix(s.math("MULTIPLY", ridge, 0.6), base, color("#8a6a24"))
    freckle = s.math(
        "MULTIPLY",
        s.step(s.cells(p, 150.0), 0.30, 0.16),
        s.step(s.noise(p, 42.0, 3), 0.50, 0.62),
    )
    base = s.mix(s.math("MULTIPLY", freckle, 0.8), base, color("#5b3a17"))
    bruise = s.step(s.noise(s.position(offset=(3, 1, 4)), 28.0, 5, 0.62), 0.62, 0.72)
    base = s.mix(s.math("MULTIPLY", bruise, 0.65), base, color("#7a5220"))
    ends = s.math("MAXIMUM", s.step(t, 0.035, 0.012), s.step(t, 0.965, 0.982))
    base = s.mix(ends, base, color("#2a1c10"))
    height = s.math("ADD", s.noise(p, 160.0, 3), s.math("MULTIPLY", mottle, 1.5))
    return s.surface(
        s.principled(
            Base_Color=base,
            Roughness=0.46,
            Subsurface_Weight=0.10,
            Subsurface_Radius=(0.005, 0.003, 0.001),
            Subsurface_Scale=1.0,
            Normal=s.bump(height, 0.0005, 0.6),
        )
    )


def glass_material(tone: str):
    """Colored glass; shadow rays pass straight through, tinted, in place of noisy caustics."""
    s = Shader("glass")
    glass = s.principled(
        Base_Color=color(tone),
        Roughness=0.015,
        Transmission_Weight=1.0,
        IOR=1.5,
        Normal=s.bump(s.noise(s.position(), 18.0, 2), 0.0012, 0.25),
    )
    clear = s.add("ShaderNodeBsdfTransparent", {0: color(tone)}).outputs[0]
    shadow = s.add("ShaderNodeLightPath").outputs["Is Shadow Ray"]
    return s.surface(s.add("ShaderNodeMixShader", {0: shadow, 1: glass, 2: clear}).outputs[0])


def cork_material():
    s = Shader("cork")
    p = s.position()
    base = s.ramp(
        s.noise(p, 190.0, 4, 0.7),
        [(0.35, color("#6e4527")), (0.5, color("#b98a58")), (0.7, color("#d2a877"))],
    )
    return s.surface(
        s.principled(Base_Color=base, Roughness=0.85, Normal=s.bump(s.noise(p, 220.0, 4), 0.001))
    )


def paper_material(name: str, tone: str):
    s = Shader(name)
    p = s.position()
    base = s.mix(
        s.math("MULTIPLY", s.noise(p, 70.0, 5), 0.35), color(tone), color("#a8946c"), "MULTIPLY"
    )
    return s.surface(
        s.principled(Base_Color=base, Roughness=0.75, Normal=s.bump(s.noise(p, 600.0, 2), 0.0002))
    )


def pages_material():
    """The cut edge of a block of pages: fine layers in z."""
    s = Shader("pages")
    x, y, z = s.split(s.position())
    layer = s.noise(
        s.join(
            s.math("MULTIPLY", x, 9.0), s.math("MULTIPLY", y, 9.0), s.math("MULTIPLY", z, 1500.0)
        ),
        1.0,
        3,
        0.7,
    )
    base = s.ramp(
        layer, [(0.30, color("#a8926b")), (0.52, color("#d8c9a6")), (0.75, color("#efe6cf"))]
    )
    return s.surface(s.principled(Base_Color=base, Roughness=0.9, Normal=s.bump(layer, 0.0006)))


def cloth_material(name: str, tone: str, worn: str):
    """Book cloth: a fine weave, paler where corners and hands have worn it."""
    s = Shader(name)
    p = s.position()
    x, y, z = s.split(p)
    weave = s.math(
        "ADD",
        s.math("SINE", s.math("MULTIPLY", x, 7000.0)),
        s.math("SINE", s.math("MULTIPLY", s.math("ADD", y, z), 7000.0)),
    )
    wear = s.noise(p, 26.0, 6, 0.7)
    base = s.mix(s.math("MULTIPLY", s.step(wear, 0.45, 0.80), 0.55), color(tone), color(worn))
    height = s.math("ADD", s.math("MULTIPLY", weave, 0.12), s.noise(p, 900.0, 2))
    return s.surface(
        s.principled(
            Base_Color=base,
            Roughness=0.78,
            Sheen_Weight=0.15,
            Normal=s.bump(height, 0.00025, 0.8),
        )
    )


def clay_material():
    """Terracotta with the whitish bloom of lime and a damp foot."""
    s = Shader("clay")
    p = s.position()
    _, _, z = s.split(p)
    base = s.mix(s.noise(p, 30.0, 5, 0.6), color("#a4502f"), color("#c97a50"))
    bloom = s.step(s.noise(s.position(offset=(7, 0, 2)), 24.0, 6, 0.68), 0.50, 0.70)
    base = s.mix(s.math("MULTIPLY", bloom, 0.45), base, color("#d8bfa6"))
    damp = s.step(s.math("ADD", z, s.math("MULTIPLY", s.noise(p, 28.0, 4), 0.03)), 0.034, 0.020)
    base = s.mix(s.math("MULTIPLY", damp, 0.5), base, color("#7d3d24"))
    _, _, turn = s.split(s.position((1, 1, 900)))
    lines = s.math("SINE", turn)
    height = s.math("ADD", s.noise(p, 260.0, 4), s.math("MULTIPLY", lines, 0.2))
    return s.surface(
        s.principled(Base_Color=base, Roughness=0.86, Normal=s.bump(height, 0.0006, 0.7))
    )


def soil_material():
    s = Shader("soil")
    p = s.position()
    base = s.ramp(s.noise(p, 260.0, 5, 0.7), [(0.35, color("#120b07")), (0.65, color("#4a3424"))])
    return s.surface(
        s.principled(Base_Color=base, Roughness=0.95, Normal=s.bump(s.noise(p, 200.0, 5), 0.004))
    )


def leaf_material():
    """A waxy leaf: dark blade, pale veins, each leaf its own green, light shining through."""
    s = Shader("leaf")
    u, v, tint = s.split(s.attribute("leaf", "Vector"))
    side = s.math("ABSOLUTE", v)
    blade = s.ramp(
        tint, [(0.0, color("#1d4a1f")), (0.55, color("#356b2a")), (1.0, color("#6d9a3a"))]
    )
    slant = s.math(
        "FRACT", s.math("MULTIPLY", s.math("SUBTRACT", u, s.math("MULTIPLY", side, 0.20)), 7.0)
    )
    lateral = s.step(s.math("ABSOLUTE", s.math("SUBTRACT", slant, 0.5)), 0.10, 0.03)
    midrib = s.step(side, 0.10, 0.035)
    vein = s.math("MAXIMUM", s.math("MULTIPLY", lateral, 0.35), midrib)
    base = s.mix(s.math("MULTIPLY", vein, 0.55), blade, color("#a9bf74"))
    base = s.mix(
        s.math("MULTIPLY", s.noise(s.position(), 60.0, 4), 0.4), base, color("#8fae55"), "MULTIPLY"
    )
    height = s.math("SUBTRACT", s.noise(s.position(), 140.0, 2), s.math("MULTIPLY", vein, 0.8))
    normal = s.bump(height, 0.0012, 0.7)
    skin = s.principled(Base_Color=base, Roughness=0.36, Normal=normal, Specular_IOR_Level=0.5)
    through = s.add(
        "ShaderNodeBsdfTranslucent",
        {0: s.mix(0.6, base, color("#9cc43a"), "SCREEN"), "Normal": normal},
    ).outputs[0]
    return s.surface(s.add("ShaderNodeMixShader", {0: 0.25, 1: skin, 2: through}).outputs[0])


def felt_material():
    """Tennis felt, with the seam told by the vertex attribute "seam" (1 on it)."""
    s = Shader("felt")
    p = s.position()
    felt = s.mix(s.noise(p, 130.0, 5, 0.7), color("#a9b82c"), color("#d6e04a"))
    felt = s.mix(
        s.math("MULTIPLY", s.step(s.noise(p, 30.0, 3), 0.5, 0.75), 0.3), felt, color("#8b8a4a")
    )
    seam = s.step(s.attribute("seam"), 0.35, 0.6)
    base = s.mix(seam, felt, color("#d9d8cc"))
    return s.surface(
        s.principled(
            Base_Color=base,
            Roughness=0.9,
            Sheen_Weight=0.35,
            Normal=s.bump(s.noise(p, 420.0, 4, 0.7), 0.0016, 0.7),
        )
    )


# ----------------------------------------------------------------------------------------- meshes


def mesh_object(name: str, vertices, faces, material, smooth=True, **attributes):
    """A mesh from (N, 3) vertices and index faces; attributes are (N,) or (N, 3) arrays."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(np.asarray(vertices, float).tolist(), [], [list(map(int, f)) for f in faces])
    for key, values in attributes.items():
        array = np.asarray(values, np.float32)
        kind, slot = ("FLOAT", "value") if array.ndim == 1 else ("FLOAT_VECTOR", "vector")
        mesh.attributes.new(key, kind, "POINT").data.foreach_set(slot, array.ravel())
    mesh.polygons.foreach_set("use_smooth", [smooth] * len(mesh.polygons))
    mesh.materials.append(material)
    mesh.update()
    made = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(made)
    return made


def spline(points, steps: int = 8) -> np.ndarray:
    """Catmull-Rom through (N, D) points, `steps` samples a piece; a repeated point is a corner."""
    p = np.asarray(points, float)
    padded = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    out = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        if np.allclose(b, c):
            continue
        t = np.arange(steps)[:, None] / steps
        first = np.zeros_like(b) if np.allclose(a, b) else 0.5 * (c - a)
        last = np.zeros_like(b) if np.allclose(c, d) else 0.5 * (d - b)
        out.append(
            (2 * t**3 - 3 * t**2 + 1) * b
            + (t**3 - 2 * t**2 + t) * first
            + (3 * t**2 - 2 * t**3) * c
            + (t**3 - t**2) * last
        )
    return np.vstack([*out, p[-1:]])


def grid_faces(rows: int, columns: int, closed: bool) -> list[tuple[int, int, int, int]]:
    """Quads of a rows x columns vertex grid; `closed` joins the last column to the first."""
    return [
        (
            r * columns + c,
            r * columns + (c + 1) % columns,
            (r + 1) * columns + (c + 1) % columns,
            (r + 1) * columns + c,
        )
        for r in range(rows - 1)
        for c in range(columns if closed else columns - 1)
    ]


def lathe(name: str, profile: np.ndarray, material, segments: int = 96, shape=None, **attributes):
    """Turn an (N, 2) profile of (radius, z) about the z axis.

    `shape` may move the (N, segments, 3) vertices; attributes hold one value a profile point.
    """
    turn = np.linspace(0, 2 * math.pi, segments, endpoint=False)
    radius, z = profile[:, :1], profile[:, 1:]
    grid = np.stack([radius * np.cos(turn), radius * np.sin(turn), z + 0 * turn], axis=-1)
    if shape is not None:
        grid = shape(grid)
    spread = {key: np.repeat(np.asarray(v, float), segments) for key, v in attributes.items()}
    faces = grid_faces(len(profile), segments, closed=True)
    return mesh_object(name, grid.reshape(-1, 3), faces, material, **spread)


def sweep(path: np.ndarray, sections: np.ndarray, up: Vector) -> np.ndarray:
    """Carry (N, M, 2) cross-sections along an (N, 3) path: (N, M, 3) vertices."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, np.asarray(up, float))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    normal = np.cross(side, tangent)
    return path[:, None] + sections[..., :1] * side[:, None] + sections[..., 1:] * normal[:, None]


def ellipse(radii, aspect: float = 1.0, count: int = 20) -> np.ndarray:
    """(N, count, 2) ellipses, one a radius; the second axis is `aspect` times the first."""
    turn = np.linspace(0, 2 * math.pi, count, endpoint=False)
    unit = np.stack([np.cos(turn), aspect * np.sin(turn)], axis=-1)
    return np.asarray(radii, float)[:, None, None] * unit


def tube(name: str, path, radii, material, up=(0, 0, 1), aspect: float = 1.0):
    grid = sweep(np.asarray(path, float), ellipse(radii, aspect), Vector(up))
    faces = grid_faces(grid.shape[0], grid.shape[1], closed=True)
    return mesh_object(name, grid.reshape(-1, 3), faces, material)


def block(name: str, low, high, material, bevel: float = 0.0):
    """An axis-aligned box, its edges rounded by `bevel` metres."""
    corners = [[(low, high)[i >> a & 1][a] for a in range(3)] for i in range(8)]
    faces = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    made = mesh_object(name, corners, faces, material, smooth=False)
    if bevel:
        modifier = made.modifiers.new("bevel", "BEVEL")
        modifier.width, modifier.segments = bevel, 3
    return made


def lettering(name: str, text: str, size: float, material, bend):
    """Flat letters centered on the origin of the x-y plane, each vertex then moved by `bend`."""
    curve = bpy.data.curves.new(name, "FONT")
    curve.body, curve.size = text, size
    curve.align_x, curve.align_y = "CENTER", "CENTER"
    made = bpy.data.objects.new(name, curve)
    bpy.context.collection.objects.link(made)
    mesh = bpy.data.meshes.new_from_object(
        made.evaluated_get(bpy.context.evaluated_depsgraph_get())
    )
    bpy.data.objects.remove(made)
    # Long triangles would cut through the curved surface they are laid on.
    shape = bmesh.new()
    shape.from_mesh(mesh)
    bmesh.ops.triangulate(shape, faces=shape.faces)
    bmesh.ops.subdivide_edges(shape, edges=shape.edges, cuts=4, use_grid_fill=True)
    shape.to_mesh(mesh)
    shape.free()
    for vertex in mesh.vertices:
        vertex.co = bend(vertex.co.x, vertex.co.y)
    mesh.materials.clear()
    mesh.materials.append(material)
    lettered = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(lettered)
    return lettered


# ---------------------------------------------------------------------------------------- objects


def mug():
    glaze = glaze_material()
    outer = [(0.0, 0.002), (0.026, 0.002), (0.028, 0.0), (0.031, 0.0), (0.036, 0.004)]
    wall = [(0.0405, 0.016), (0.0425, 0.04), (0.0425, 0.065), (0.0415, 0.086), (0.0413, 0.0915)]
    rim = [(0.0402, 0.0935), (0.0388, 0.0925)]
    inner = [(0.0380, 0.088), (0.0385, 0.065), (0.0380, 0.03), (0.033, 0.012), (0.0, 0.009)]
    profile = spline(outer + wall + rim + inner, 8)
    count = len(profile)
    top = int(profile[:, 1].argmax())
    inside = smoothstep(top - 1, top + 5, np.arange(count))
    lip = np.exp(-(((profile[:, 1] - 0.0935) / 0.0035) ** 2))
    body = lathe("mug", profile, glaze, 128, inside=inside, rim=lip)
    path = spline(
        [
            (0.0400, 0, 0.0745),
            (0.0520, 0, 0.0795),
            (0.0680, 0, 0.0740),
            (0.0740, 0, 0.0560),
            (0.0660, 0, 0.0365),
            (0.0520, 0, 0.0270),
            (0.0405, 0, 0.0245),
        ],
        10,
    )
    t = np.linspace(0, 1, len(path))
    radii = 0.0062 + 0.0032 * np.exp(-t / 0.05) + 0.0026 * np.exp(-(1 - t) / 0.05)
    handle = tube("mug handle", path, radii, glaze, up=(0, 1, 0), aspect=1.35)
    coffee = lathe(
        "coffee", np.array([(0.0, 0.0772), (0.0375, 0.0772), (0.0384, 0.0777)]), coffee_material()
    )
    return [body, handle, coffee]


def apple():
    profile = spline(
        [
            (0.0, 0.0560),
            (0.004, 0.0572),
            (0.011, 0.0650),
            (0.021, 0.0712),
            (0.032, 0.0680),
            (0.0392, 0.0560),
            (0.0400, 0.0420),
            (0.0355, 0.0240),
            (0.0275, 0.0085),
            (0.0190, 0.0010),
            (0.0120, 0.0012),
            (0.0060, 0.0050),
            (0.0, 0.0065),
        ],
        8,
    )

    def lobes(grid):
        turn = np.arctan2(grid[..., 1], grid[..., 0])
        low = smoothstep(0.045, 0.0, grid[..., 2])
        high = smoothstep(0.04, 0.07, grid[..., 2])
        swell = 1 + 0.045 * low * np.cos(5 * turn) + 0.022 * high * np.cos(5 * turn + 0.6)
        swell += 0.018 * np.cos(2 * turn + 1.0) + 0.012 * np.cos(3 * turn)
        grid = grid * np.stack([swell, swell, np.ones_like(swell)], -1)
        grid[..., 2] += 0.08 * grid[..., 0] * smoothstep(0.02, 0.06, grid[..., 2])
        return grid

    body = lathe("apple", profile, apple_material(), 120, lobes)
    path = spline(
        [(0, 0, 0.052), (0.001, 0.0005, 0.064), (0.0035, 0.001, 0.074), (0.0085, 0.002, 0.0830)], 8
    )
    t = np.linspace(0, 1, len(path))
    stem = tube(
        "apple stem",
        path,
        0.00125 + 0.0012 * smoothstep(0.75, 1.0, t),
        plain_material("stem", "#4b3320", 0.8),
        up=(0, 1, 0),
    )
    return [body, stem]


def banana():
    n, m = 96, 40
    t = np.linspace(0, 1, n)
    angle = np.radians(-58 + 116 * t)
    bend = 0.098 * (1 + 0.10 * np.cos(angle))
    path = np.stack([bend * np.sin(angle), bend * np.cos(angle) - 0.098, 0 * t], -1)
    radius = 0.0182 * np.sqrt(np.clip(smoothstep(0.06, 0.42, t) * smoothstep(1.03, 0.66, t), 0, 1))
    radius = np.maximum(radius, np.where(t < 0.5, 0.0052, 0.0042))
    radius[[0, -1]] = 0.0001
    turn = np.linspace(0, 2 * math.pi, m, endpoint=False)
    ridge = np.cos(5 * turn + 0.5)
    sharp = 0.075 * smoothstep(0.05, 0.3, t) * smoothstep(1.0, 0.75, t)
    section = radius[:, None] * (1 + sharp[:, None] * ridge)
    sections = np.stack([section * np.cos(turn), 0.94 * section * np.sin(turn)], -1)
    grid = sweep(path, sections, Vector((0, 0, 1)))
    body = mesh_object(
        "banana",
        grid.reshape(-1, 3),
        grid_faces(n, m, closed=True),
        banana_material(),
        along=np.repeat(t, m),
        ridge=np.tile(ridge, n),
    )
    return [body]


def bottle():
    """A corked bottle of oil with a paper label."""
    glass = glass_material("#9fb25a")
    outer = [
        (0.0, 0.006),
        (0.020, 0.004),
        (0.029, 0.0),
        (0.0345, 0.003),
        (0.0362, 0.012),
        (0.0364, 0.06),
        (0.0364, 0.12),
        (0.0360, 0.162),
        (0.0318, 0.186),
        (0.0210, 0.205),
        (0.0145, 0.224),
        (0.0136, 0.250),
        (0.0136, 0.266),
        (0.0160, 0.268),
        (0.0164, 0.276),
        (0.0150, 0.280),
    ]
    inner = [
        (0.0100, 0.280),
        (0.0096, 0.250),
        (0.0108, 0.224),
        (0.0180, 0.203),
        (0.0285, 0.184),
        (0.0326, 0.160),
        (0.0330, 0.12),
        (0.0330, 0.06),
        (0.0328, 0.016),
        (0.026, 0.009),
        (0.0, 0.012),
    ]
    shell = lathe("bottle", spline(outer + inner, 8), glass, 128)
    level = [(0.0, 0.0128), (0.0256, 0.0098), (0.0322, 0.0165), (0.0326, 0.06), (0.0326, 0.12)]
    level += [(0.0322, 0.160), (0.0282, 0.1835), (0.0205, 0.197), (0.0205, 0.197), (0.0, 0.1966)]
    s = Shader("oil")
    liquid = s.principled(
        Base_Color=color("#d9b83a"), Roughness=0.0, Transmission_Weight=1.0, IOR=1.46
    )
    clear = s.add("ShaderNodeBsdfTransparent", {0: color("#d8b24a")}).outputs[0]
    shadow = s.add("ShaderNodeLightPath").outputs["Is Shadow Ray"]
    oil_surface = s.surface(
        s.add("ShaderNodeMixShader", {0: shadow, 1: liquid, 2: clear}).outputs[0]
    )
    oil = lathe("oil", spline(level, 6), oil_surface, 96)
    plug = [
        (0.0, 0.262),
        (0.0094, 0.262),
        (0.0098, 0.282),
        (0.0112, 0.2975),
        (0.0100, 0.2990),
        (0.0, 0.2992),
    ]
    cork = lathe("cork", spline(plug, 5), cork_material(), 48)

    radius, low, high, half = 0.03665, 0.040, 0.122, math.radians(78)
    turn = np.linspace(-half, half, 64)
    rows = np.linspace(low, high, 12)
    grid = np.stack(
        np.broadcast_arrays(
            radius * np.sin(turn)[None], -radius * np.cos(turn)[None], rows[:, None]
        ),
        -1,
    )
    label = mesh_object(
        "label",
        grid.reshape(-1, 3),
        grid_faces(12, 64, closed=False),
        paper_material("label", "#e9dfc6"),
    )

    def wrap(middle: float):
        def bend(x, y):
            a = x / radius
            return Vector((1.004 * radius * math.sin(a), -1.004 * radius * math.cos(a), middle + y))

        return bend

    ink = plain_material("ink", "#23351f", 0.7)
    rust = plain_material("rust ink", "#8c3b22", 0.7)
    words = [
        lettering("label name", "OLIVA", 0.021, ink, wrap(0.097)),
        lettering("label line", "extra virgin", 0.0095, rust, wrap(0.079)),
        lettering("label small", "No. 7   500 ml", 0.0065, ink, wrap(0.056)),
    ]
    rules = []
    line = np.linspace(-half, half, 48)
    for z in (0.1170, 0.0450):
        strip = np.stack(
            np.broadcast_arrays(
                1.003 * radius * np.sin(line)[None],
                -1.003 * radius * np.cos(line)[None],
                np.array([[z - 0.0006], [z + 0.0006]]),
            ),
            -1,
        )
        rules.append(
            mesh_object("label rule", strip.reshape(-1, 3), grid_faces(2, 48, closed=False), rust)
        )
    return [shell, oil, cork, label, *words, *rules]


def book(name: str, size: tuple[float, float, float], tone: str, worn: str, title: str, gilt: str):
    """A hardback lying flat, its rounded spine toward -y; size is along, across, thick."""
    length, depth, thick = size
    cloth = cloth_material(f"{name} cloth", tone, worn)
    board, inset = 0.0026, 0.0035
    x, y = length / 2, depth / 2
    parts = [
        block(f"{name} back", (-x, -y, 0), (x, y, board), cloth, 0.0008),
        block(f"{name} front", (-x, -y, thick - board), (x, y, thick), cloth, 0.0008),
        block(
            f"{name} pages",
            (-x + inset, -y + 0.001, board),
            (x - inset, y - inset, thick - board),
            pages_material(),
            0.0004,
        ),
    ]
    bulge = 0.0055
    height = np.linspace(0, 1, 24)
    arc = np.stack([-y - bulge * np.sin(math.pi * height) ** 0.7, thick * height], -1)
    ring = np.vstack([arc, arc[::-1] + np.array([0.0022, 0])])
    ends = np.array([-x, x])
    grid = np.stack(np.broadcast_arrays(ends[:, None], ring[None, :, 0], ring[None, :, 1]), -1)
    count = len(ring)
    caps = [tuple(range(count)), tuple(range(2 * count - 1, count - 1, -1))]
    faces = [*grid_faces(2, count, closed=True), *caps]
    parts.append(mesh_object(f"{name} spine", grid.reshape(-1, 3), faces, cloth, smooth=False))

    def on_spine(px, py):
        h = min(max(0.5 + py / thick, 0.0), 1.0)
        return Vector((px, -y - bulge * math.sin(math.pi * h) ** 0.7 - 0.0002, thick * h))

    gold = plain_material(f"{name} gilt", gilt, 0.32, Metallic=0.7)
    parts.append(lettering(f"{name} title", title, thick * 0.46, gold, on_spine))
    for place in (-0.44, -0.40, 0.40, 0.44):
        h = np.linspace(0.04, 0.96, 16)
        band = np.stack(
            np.broadcast_arrays(
                (place * length + np.array([-0.0007, 0.0007]))[:, None],
                (-y - bulge * np.sin(math.pi * h) ** 0.7 - 0.0002)[None],
                (thick * h)[None],
            ),
            -1,
        )
        parts.append(
            mesh_object(f"{name} band", band.reshape(-1, 3), grid_faces(2, 16, closed=False), gold)
        )
    for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        half = np.array([0.0005 if sx else x - 0.012, 0.0005 if sy else y - 0.012, 0.0001])
        middle = np.array([sx * (x - 0.012), sy * (y - 0.012), thick])
        parts.append(block(f"{name} frame", middle - half, middle + half, gold))
    return parts


def plant(rng: np.random.Generator):
    """A clay pot of round-leaved greenery."""
    clay = clay_material()
    profile = [
        (0.0, 0.001),
        (0.034, 0.0),
        (0.037, 0.003),
        (0.0475, 0.074),
        (0.0475, 0.074),
        (0.0535, 0.0755),
        (0.0550, 0.079),
        (0.0565, 0.098),
        (0.0550, 0.101),
        (0.0525, 0.1005),
        (0.0500, 0.094),
        (0.0480, 0.07),
    ]
    pot = lathe("pot", spline(profile, 8), clay, 128)
    soil = lathe(
        "soil", np.array([(0.0, 0.0905), (0.03, 0.090), (0.0515, 0.0885)]), soil_material(), 64
    )

    rows, columns = 15, 11
    u = np.linspace(0, 1, rows)
    v = np.linspace(-1, 1, columns)
    outline = (u + 0.02) ** 0.50 * (1.0 - u) ** 0.62
    outline /= outline.max()
    leaf_faces = grid_faces(rows, columns, closed=False)
    vertices, faces, coords, stems = [], [], [], []
    count = 54
    for i in range(count):
        outer = (i + 0.5) / count
        azimuth = i * GOLDEN_ANGLE + rng.normal(0, 0.15)
        rise = math.radians(86 - 66 * outer + rng.normal(0, 6))
        reach = 0.092 + 0.010 * outer + rng.normal(0, 0.010)
        length = (0.036 + 0.026 * math.sqrt(outer)) * rng.uniform(0.85, 1.15)
        half = length * rng.uniform(0.36, 0.44)
        heading = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
        up = np.array([0.0, 0.0, 1.0])
        root = heading * 0.018 * outer + up * 0.088
        tip = root + reach * (math.cos(rise) * heading + math.sin(rise) * up)
        knee = root + reach * 0.55 * (
            0.45 * math.cos(rise) * heading + (math.sin(rise) + 0.25) * up
        )
        t = np.linspace(0, 1, 9)[:, None]
        stalk = (1 - t) ** 2 * root + 2 * t * (1 - t) * knee + t**2 * tip
        stems.append((stalk, azimuth))
        # The blade leaves the stalk flatter than the stalk rises, and droops along its length.
        pitch = 0.62 * rise - math.radians(10) + rng.normal(0, 0.10)
        droop = rng.uniform(0.5, 1.0)
        steps = pitch - droop * u
        run = np.concatenate([[0], np.cumsum(np.cos(steps))[:-1]]) * length / (rows - 1)
        lift = np.concatenate([[0], np.cumsum(np.sin(steps))[:-1]]) * length / (rows - 1)
        twist = rng.normal(0, 0.28)
        side = np.cross(up, heading)
        width = outline * half
        cup = (0.30 * np.abs(v) ** 1.4)[None] * width[:, None]
        cup = (
            cup
            + 0.05 * length * np.sin(9 * u[:, None] + 4 * v[None] + i) * np.abs(v)[None] ** 2 * 0.5
        )
        across = v[None] * width[:, None]
        local = (
            run[:, None, None] * heading
            + (lift[:, None] + cup * math.cos(twist) + across * math.sin(twist))[..., None] * up
            + (across * math.cos(twist) - cup * math.sin(twist))[..., None] * side
        )
        start = sum(len(blade) for blade in vertices)
        vertices.append((tip + local).reshape(-1, 3))
        faces += [tuple(start + k for k in face) for face in leaf_faces]
        tone = np.clip(0.80 - 0.62 * outer + rng.normal(0, 0.14), 0, 1)
        grid_u, grid_v = np.meshgrid(u, v, indexing="ij")
        coords.append(np.stack([grid_u, grid_v, np.full_like(grid_u, tone)], -1).reshape(-1, 3))
    leaves = mesh_object(
        "leaves", np.vstack(vertices), faces, leaf_material(), leaf=np.vstack(coords)
    )
    green = plain_material("stalk", "#6f7f3c", 0.5)
    stalks = [
        tube(
            "stalk",
            stalk,
            np.linspace(0.0016, 0.0010, len(stalk)),
            green,
            up=(-math.sin(azimuth), math.cos(azimuth), 0),
        )
        for stalk, azimuth in stems
    ]
    return [pot, soil, leaves, *stalks]


def ball(rng: np.random.Generator):
    """A used tennis ball: seam on a cubic curve, and a coat of short fibres."""
    radius = 0.0335
    rows, columns = 160, 240
    polar = np.linspace(0.0005, math.pi - 0.0005, rows)[:, None]
    turn = np.linspace(0, 2 * math.pi, columns, endpoint=False)[None]
    unit = np.stack(
        np.broadcast_arrays(
            np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) + 0 * turn
        ),
        -1,
    ).reshape(-1, 3)
    a, b = 0.72, 0.28
    k = np.linspace(0, 2 * math.pi, 400, endpoint=False)
    curve = np.stack(
        [
            a * np.cos(k) + b * np.cos(3 * k),
            a * np.sin(k) - b * np.sin(3 * k),
            2 * math.sqrt(a * b) * np.sin(2 * k),
        ],
        -1,
    )

    def seam_of(points):
        nearest = np.full(len(points), np.inf)
        for piece in np.array_split(curve, 20):
            gap = np.linalg.norm(points[:, None] - piece[None], axis=-1).min(1)
            nearest = np.minimum(nearest, gap)
        return np.exp(-((nearest * radius / 0.0022) ** 2))

    seam = seam_of(unit)
    felt = felt_material()
    body = mesh_object(
        "ball",
        unit * (radius - 0.0009 * seam)[:, None],
        grid_faces(rows, columns, closed=True),
        felt,
        seam=seam,
    )
    roots = rng.normal(size=(26000, 3))
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    roots = roots[seam_of(roots) < 0.25]
    lean = np.cross(roots, rng.normal(size=roots.shape))
    lean /= np.linalg.norm(lean, axis=1, keepdims=True)
    length = rng.uniform(0.0005, 0.0017, (len(roots), 1))
    width = np.cross(roots, lean) * 0.00005
    base = roots * radius
    middle = base + length * (0.5 * roots + 0.35 * lean)
    end = base + length * (0.65 * roots + 0.95 * lean)
    fibres = np.stack([base - width, base + width, middle - width, middle + width, end], 1)
    offsets = 5 * np.arange(len(roots))[:, None]
    quads = (offsets + np.array([[0, 1, 3, 2]])).tolist()
    tips = (offsets + np.array([[2, 3, 4]])).tolist()
    fuzz = mesh_object(
        "fuzz", fibres.reshape(-1, 3), [*quads, *tips], felt, seam=np.zeros(5 * len(roots))
    )
    return [body, fuzz]


# ------------------------------------------------------------------------------------------ scene


def place(parts, at: tuple[float, float], turn: float = 0.0, tilt=(0.0, 0.0), on: float = 0.0):
    """Turn parts (degrees about z, after tilting about x and y), move them, rest them at z = on."""
    rotation = Euler((0, 0, math.radians(turn))).to_matrix().to_4x4()
    rotation @= Euler((math.radians(tilt[0]), math.radians(tilt[1]), 0)).to_matrix().to_4x4()
    lowest = min((rotation @ v.co).z for part in parts for v in part.data.vertices)
    matrix = Matrix.Translation((at[0], at[1], on - lowest)) @ rotation
    for part in parts:
        part.matrix_world = matrix
    return parts


def furnish(rng: np.random.Generator) -> dict[str, list]:
    """The objects, by name."""
    thick = 0.033
    return {
        "potted plant": place(plant(rng), (-0.200, 0.130), 20),
        "bottle": place(bottle(), (0.010, 0.135), -4),
        "blue book": place(
            book(
                "blue book",
                (0.235, 0.160, thick),
                "#1b3050",
                "#415a78",
                "THE TIDE TABLES",
                "#c9a24a",
            ),
            (0.170, 0.060),
            -13,
        ),
        "red book": place(
            book(
                "red book",
                (0.190, 0.128, 0.023),
                "#86301f",
                "#9a4631",
                "A Field of Stones",
                "#e0c27a",
            ),
            (0.178, 0.070),
            -4,
            on=thick,
        ),
        "mug": place(mug(), (-0.098, -0.062), -30),
        "apple": place(apple(), (0.036, -0.085), 70, (7, -5)),
        "banana": place(banana(), (0.195, -0.115), 168, (4, 0)),
        "tennis ball": place(ball(rng), (0.200, 0.075), 40, (50, 20), on=thick + 0.023),
    }


def room() -> None:
    """The table, and a far wall that the lens leaves out of focus."""
    table = block("table", (-1.1, -0.75, -0.035), (1.1, 0.48, 0.0), wood_material(), 0.004)
    table.rotation_euler.z = math.radians(-7)
    block("wall", (-3.0, 1.75, -1.0), (3.0, 1.80, 2.2), plaster_material("wall", "#cfc8ba"))
    block("panel", (-3.0, 1.73, -1.0), (3.0, 1.75, 0.06), plaster_material("panel", "#8c9a94"))
    block("rail", (-3.0, 1.70, 0.05), (3.0, 1.75, 0.09), plain_material("rail", "#d9d4c8", 0.5))
    block("floor", (-3.0, -3.0, -0.80), (3.0, 1.8, -0.75), plain_material("floor", "#6b5440", 0.6))
    frame = plain_material("frame", "#3a2a1d", 0.5)
    block("frame", (0.28, 1.71, 0.20), (0.95, 1.75, 1.0), frame)
    block("mount", (0.32, 1.70, 0.24), (0.91, 1.71, 0.96), plain_material("mount", "#e4ddcb", 0.9))
    block("print", (0.42, 1.69, 0.33), (0.81, 1.70, 0.87), plain_material("print", "#5f7f86", 0.9))
    chair = plain_material("chair", "#8a6440", 0.5)
    for x in (-0.92, -0.56):
        block("chair post", (x, 1.00, -0.75), (x + 0.045, 1.045, 0.34), chair, 0.012)
    for z in (0.06, 0.17, 0.28):
        block("chair slat", (-0.90, 1.01, z), (-0.54, 1.03, z + 0.055), chair, 0.008)


def light() -> None:
    """A four-pane window at the left, its light slightly cool, and the dim warm room around."""
    aim = Vector((0.0, 0.1, 0.05))
    center = Vector((-1.55, -0.35, 1.00))
    back = (center - aim).normalized()
    right = Vector((0, 0, 1)).cross(back).normalized()
    up = back.cross(right)
    turn = Matrix((right, up, back)).transposed().to_4x4()
    for i in (-1, 1):
        for j in (-1, 1):
            data = bpy.data.lights.new("pane", "AREA")
            data.shape, data.size, data.size_y = "RECTANGLE", 0.44, 0.56
            data.energy, data.color = 24.0, (1.0, 0.965, 0.92)
            pane = bpy.data.objects.new("pane", data)
            pane.matrix_world = Matrix.Translation(center + 0.24 * i * right + 0.30 * j * up) @ turn
            bpy.context.collection.objects.link(pane)

    wash = bpy.data.lights.new("wash", "AREA")
    wash.size, wash.energy, wash.color = 1.2, 16.0, (1.0, 0.95, 0.88)
    lamp = bpy.data.objects.new("wash", wash)
    lamp.location = (-1.8, 0.9, 1.3)
    lamp.rotation_euler = Vector((-1.6, -0.85, 1.2)).to_track_quat("Z", "Y").to_euler()
    bpy.context.collection.objects.link(lamp)

    world = bpy.data.worlds.new("room")
    bpy.context.scene.world = world
    nodes, links = world.node_tree.nodes, world.node_tree.links
    nodes.clear()
    coords = nodes.new("ShaderNodeTexCoord")
    axis = nodes.new("ShaderNodeSeparateXYZ")
    links.new(coords.outputs["Generated"], axis.inputs[0])
    ramp = nodes.new("ShaderNodeValToRGB")
    height = nodes.new("ShaderNodeMapRange")
    height.inputs[1].default_value, height.inputs[2].default_value = -1.0, 1.0
    links.new(axis.outputs[2], height.inputs[0])
    links.new(height.outputs[0], ramp.inputs[0])
    stops = [(0.0, "#2a211a"), (0.48, "#6b6157"), (1.0, "#d6cfc4")]
    while len(ramp.color_ramp.elements) < len(stops):
        ramp.color_ramp.elements.new(1.0)
    for element, (at, tone) in zip(ramp.color_ramp.elements, stops, strict=True):
        element.position, element.color = at, color(tone)
    background = nodes.new("ShaderNodeBackground")
    background.inputs[1].default_value = 0.42
    links.new(ramp.outputs[0], background.inputs[0])
    output = nodes.new("ShaderNodeOutputWorld")
    links.new(background.outputs[0], output.inputs[0])


def camera() -> None:
    data = bpy.data.cameras.new("camera")
    data.lens, data.sensor_width = 53.0, 36.0
    made = bpy.data.objects.new("camera", data)
    made.location = (0.03, -0.93, 0.38)
    aim = Vector((0.005, 0.05, 0.110))
    made.rotation_euler = (made.location - aim).to_track_quat("Z", "Y").to_euler()
    bpy.context.collection.objects.link(made)
    data.dof.use_dof = True
    data.dof.focus_distance = (made.location - Vector((0.02, 0.0, 0.05))).length
    data.dof.aperture_fstop = 3.5
    bpy.context.scene.camera = made


def render_image(path: Path, samples: int, scale: int) -> None:
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = scale
    cycles = scene.cycles
    cycles.device, cycles.seed, cycles.samples = "CPU", 0, samples
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.015
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.max_bounces, cycles.transmission_bounces, cycles.transparent_max_bounces = 10, 10, 16
    cycles.sample_clamp_indirect = 8.0
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"
    scene.view_settings.exposure = 0.1
    save(path)


def render_ids(path: Path, objects: dict[str, list], scale: int) -> None:
    """One ray through each pixel center, each object glowing in its own gray."""
    scene = bpy.context.scene
    scene.camera.data.dof.use_dof = False
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
    scene.render.dither_intensity = 0.0
    scene.view_settings.view_transform, scene.view_settings.look = "Raw", "None"
    scene.view_settings.exposure = 0.0
    scene.world.node_tree.nodes.clear()
    numbers = {p.name: i for i, parts in enumerate(objects.values(), 1) for p in parts}
    for thing in list(scene.objects):
        if thing.type == "LIGHT":
            bpy.data.objects.remove(thing)
        elif thing.type == "MESH":
            gray = numbers.get(thing.name, 0) * ID_STEP / 255
            s = Shader("id")
            flat = s.add("ShaderNodeEmission", {0: (gray, gray, gray, 1.0)}).outputs[0]
            thing.data.materials[0] = s.surface(flat)
    save(path)


def save(path: Path) -> None:
    settings = bpy.context.scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGB", "8"
    bpy.context.scene.render.filepath = str(path.resolve())
    bpy.ops.render.render(write_still=True)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Render the sample image and its object ids.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two PNGs")
    parser.add_argument("--samples", type=int, default=96, help="rays a pixel")
    parser.add_argument("--scale", type=int, default=100, help="per cent of 640x480, for previews")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    room()
    light()
    camera()
    objects = furnish(np.random.default_rng(7))
    render_image(options.out / "render.png", options.samples, options.scale)
    render_ids(options.out / "ids.png", objects, options.scale)
    names = {str(i * ID_STEP): name for i, name in enumerate(objects, 1)}
    (options.out / "ids.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    # Blender hands its own arguments over too; ours follow "--" there.
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
