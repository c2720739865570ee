"""From a label and a look to the tape of one image: one painter per data set.

The label decides number and shape of the nuclei, grain, and the texture of the stains; how strongly it does so varies
from cell to cell, so that some images of different labels look alike, as they do in life.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.chammi import ALLEN, CP, HPA
from chammi_fast.synthetic import organelles as stain
from chammi_fast.synthetic.looks import Look, Tape, digitise, expose
from chammi_fast.synthetic.scene import Body, Scene, build, place
from chammi_fast.synthetic.textures import Plane, double_size, ridges

if TYPE_CHECKING:
    from collections.abc import Callable

WEAKEST_EFFECT = {"Allen": 0.0, "HPA": 0.4, "CP": 0.3}  # of a label; at 1 all images of a label are alike
SIZE_SPREAD = 0.08  # standard deviation of the log size of cells between images
LEVELS = {  # brightness of the channels that brings their mean near the published one
    "Allen": (0.95, 1.0, 0.4),
    "HPA": (0.42, 0.2, 0.38, 0.36),
    "CP": (0.3, 0.33, 0.26, 0.4, 0.55),
}


@dataclass(frozen=True)
class Subject:
    """What an image shows.

    Attributes
    ----------
    label : of the data set's task
    kind : cell line, tagged structure or source: decides the build of the cells or the stained protein
    look : the technical traits
    """

    label: str
    kind: str
    look: Look


def strength(rng: np.random.Generator, name: str) -> float:
    """How strongly an image of a data set shows its label, between `WEAKEST_EFFECT` and 1."""
    return float(WEAKEST_EFFECT[name] + (1 - WEAKEST_EFFECT[name]) * np.sqrt(rng.random()))


def paint_allen(rng: np.random.Generator, subject: Subject) -> Tape:
    """Paint a stem cell at one stage of the cell cycle: (238, 1122) uint8."""
    shape = (ALLEN.height, ALLEN.channel_width)
    scene, kept, condensed = _stage(rng, shape, subject.label, subject.look.size)
    if subject.label == "M1M2":
        threads = ridges(scene.noise(0.7), 0.7)
        nucleus = (1 - condensed) * stain.chromatin(scene) + condensed * scene.nucleus * (0.45 + 0.65 * threads)
    elif condensed:
        nucleus = scene.nucleus * (0.9 + 0.12 * scene.noise(0.8))
    else:
        nucleus = stain.chromatin(scene)
    protein = stain.PROTEINS[subject.kind.lower()](scene)
    if condensed:
        protein = (1 - 0.5 * condensed) * protein + 0.35 * condensed * stain.cytosol(scene)
    keep = (scene.culture.owner < kept).astype(np.float32)
    planes = np.stack([nucleus + 0.05 * scene.cell, stain.membrane(scene), protein]) * keep
    return digitise(rng, expose(rng, planes, subject.look, LEVELS["Allen"]), subject.look)


def _stage(rng: np.random.Generator, shape: tuple[int, int], label: str, size: float) -> tuple[Scene, int, float]:
    """Cells of a stage, how many of them are shown, and how condensed the chromatin is."""
    effect = strength(rng, "Allen")
    size *= float(np.exp(SIZE_SPREAD * rng.standard_normal()))
    body = Body(nucleus_px=60 * size, cell_px=118 * size, stretch=1.25, neighbours=5, spacing_px=215 * size)
    if label.startswith("M6M7"):
        body = replace(
            body, nucleus_px=(58 - 20 * effect) * size, cell_px=(108 - 24 * effect) * size, stretch=1.15, neighbours=4
        )
        turn = rng.uniform(0, 2 * np.pi)
        half = np.array([np.sin(turn), np.cos(turn)]) * (44 + 10 * effect) * size
        complete = label == "M6M7_complete"
        first, second = (half, -half) if complete else (0.3 * half, -1.7 * half)
        centres = [(float(first[0]), float(first[1])), (float(second[0]), float(second[1]))]
        return build(rng, shape, body, centres + place(rng, body)[1:]), 2 if complete else 1, 0.0
    if label == "M0":
        return build(rng, shape, body, place(rng, body)), 1, 0.0
    if label == "M1M2":
        body = replace(body, nucleus_px=(60 + 2 * effect) * size, cell_px=(118 - 12 * effect) * size, stretch=1.15)
        return build(rng, shape, body, place(rng, body)), 1, effect
    body = replace(body, cell_px=102 * size, stretch=1.05 if label == "M3" else 1.25, nucleus_px=46 * size)
    scene = build(rng, shape, body, place(rng, body))
    across, along = scene.culture.along(scene.turn)
    if label == "M4M5":
        across = np.abs(across) - np.float32((8 + 26 * effect) * size)
    bend = np.float32(0.0015 if label == "M4M5" else 0.0)
    thick, long = (24 - 8 * effect) * size, (42 + 12 * effect) * size
    bars = 1 - np.hypot((across + bend * along**2) / np.float32(thick), (along / np.float32(long)) ** 2)
    depth = np.minimum(bars * np.float32(thick), scene.cell_depth - 1)
    return replace(scene, nucleus_depth=depth), 1, 0.5 + 0.5 * effect


LINES = {  # nucleus radius, cell radius (in 256ths of the image), stretch, neighbours, spacing
    "A-431": (34, 66, 1.2, 6, 116),
    "A549": (36, 78, 1.3, 5, 132),
    "CACO-2": (32, 60, 1.1, 6, 104),
    "EFO-21": (38, 84, 1.4, 4, 140),
    "HAP1": (32, 58, 1.15, 6, 104),
    "HeLa": (36, 72, 1.3, 5, 124),
    "Hep G2": (34, 62, 1.1, 6, 108),
    "HUVEC TERT2": (36, 88, 1.6, 4, 148),
    "MCF7": (36, 68, 1.15, 6, 116),
    "PC-3": (36, 76, 1.4, 5, 132),
    "U-251 MG": (36, 82, 1.5, 5, 136),
    "RH-30": (35, 78, 1.5, 5, 136),
    "RT4": (33, 60, 1.1, 6, 104),
    "SH-SY5Y": (32, 62, 1.5, 5, 112),
    "SiHa": (35, 74, 1.3, 5, 128),
    "SK-MEL-30": (35, 76, 1.45, 5, 132),
    "U-2 OS": (38, 86, 1.35, 5, 144),
    "HEK 293": (30, 50, 1.2, 7, 92),
}


_HPA_LABELS = HPA.train_labels + HPA.tasks[2].novel_labels


def paint_hpa(rng: np.random.Generator, subject: Subject) -> Tape:
    """Paint cells of a line with one stained protein: (512, 2048) uint8, at half size and then doubled."""
    nucleus, cell, stretch, neighbours, spacing = LINES[subject.kind]
    size = subject.look.size
    body = Body(nucleus * size, cell * size, stretch=stretch, neighbours=neighbours, spacing_px=spacing * size)
    scene = build(rng, (HPA.height // 2, HPA.channel_width // 2), body, place(rng, body))
    effect = strength(rng, "HPA")
    second = _HPA_LABELS[int(rng.integers(len(_HPA_LABELS)))]  # many proteins live in more than one place
    protein = effect * stain.PROTEINS[subject.label](scene) + (1 - effect) * stain.PROTEINS[second](scene)
    planes = np.stack([stain.microtubules(scene), protein, stain.chromatin(scene), stain.reticulum(scene, grain=1.2)])
    return digitise(rng, double_size(expose(rng, planes, subject.look, LEVELS["HPA"])), subject.look)


@dataclass(frozen=True)
class Effect:
    """What a compound does to a cell at full strength; zeros for the untreated cell.

    Attributes
    ----------
    nucleus, cell, stretch : relative change of size and stretch
    fragments, gather : of mitochondria
    spread : of the Golgi apparatus, beyond compact
    grain : relative change of the ER's mesh
    vacuoles : share of cytoplasm taken by holes
    nucleoli : relative change of the nucleoli's brightness
    granules : bright spots in the RNA and ER stains
    """

    nucleus: float = 0.0
    cell: float = 0.0
    stretch: float = 0.0
    fragments: float = 0.0
    gather: float = 0.0
    spread: float = 0.0
    grain: float = 0.0
    vacuoles: float = 0.0
    nucleoli: float = 0.0
    granules: float = 0.0


EFFECTS = {
    "DMSO": Effect(),
    "BRD-A29260609": Effect(fragments=0.9, gather=0.5, grain=0.2),
    "BRD-K04185004": Effect(vacuoles=0.5, spread=1.6, cell=0.05),
    "BRD-K21680192": Effect(nucleus=0.35, cell=0.2, nucleoli=-1.0, gather=0.3),
    # The novel ones combine what the others do apart, so that features learned from those tell them apart as well.
    "BRD-K11129031": Effect(grain=0.8, fragments=1.0, gather=0.3, spread=1.8, nucleoli=0.5),
    "BRD-K62310379": Effect(stretch=0.6, vacuoles=0.6, spread=1.6, nucleus=0.35, nucleoli=-1.0),
    "BRD-K77947974": Effect(cell=-0.2, nucleus=0.4, granules=0.8, fragments=1.0, gather=0.8, nucleoli=-1.0),
}
SOURCE_BODIES = {"LINCS": (15.5, 38.0, 1.25), "CDRP": (17.5, 46.0, 1.35), "BBBC022": (18.5, 50.0, 1.4)}


def paint_cp(rng: np.random.Generator, subject: Subject) -> Tape:
    """Paint cells under a compound: (160, 800) uint8."""
    effect, dose = EFFECTS[subject.label], strength(rng, "CP")
    nucleus, cell, stretch = SOURCE_BODIES[subject.kind]
    size = subject.look.size
    body = Body(
        nucleus_px=nucleus * size * (1 + dose * effect.nucleus),
        cell_px=cell * size * (1 + dose * effect.cell),
        stretch=stretch * (1 + dose * effect.stretch),
        wobble=0.09,
        neighbours=5,
        spacing_px=70 * size,
    )
    scene = build(rng, (CP.height, CP.channel_width), body, place(rng, body))
    planes = np.stack(cell_painting(scene, effect, dose))
    return digitise(rng, expose(rng, planes, subject.look, LEVELS["CP"]), subject.look)


def cell_painting(scene: Scene, effect: Effect, dose: float) -> list[Plane]:
    """Nucleus, ER, RNA, Golgi and mitochondria of a scene."""
    holes = np.clip(scene.noise(1.6) - np.float32(2.2 - 2.2 * dose * effect.vacuoles), 0, 0.8) * scene.cytoplasm
    granules = np.clip(scene.noise(0.8) - 1.2, 0, 1) * np.float32(1.2 * dose * effect.granules) * scene.cytoplasm
    nucleoli = 0.5 * (1 + dose * effect.nucleoli) * scene.nucleus * stain.nucleolus(scene)
    er = stain.reticulum(scene, grain=1.0 + dose * effect.grain) * (1 - holes) + 0.5 * granules
    rna = (0.85 * stain.cytosol(scene) + nucleoli) * (1 - holes) + granules
    golgi = 0.5 * stain.golgi(scene, spread=1.0 + dose * effect.spread) + 0.4 * stain.membrane(scene)
    mito = stain.mitochondria(scene, fragments=dose * effect.fragments, gather=dose * effect.gather)
    return [stain.chromatin(scene, grain=0.1, nucleoli=0.2), er, rna, golgi, mito]


PAINTERS: dict[str, Callable[[np.random.Generator, Subject], Tape]] = {
    "Allen": paint_allen,
    "HPA": paint_hpa,
    "CP": paint_cp,
}
