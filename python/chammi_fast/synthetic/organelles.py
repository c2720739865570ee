"""Stains: what one fluorescent channel shows of a scene, (H, W) float32 with structures near 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.synthetic.textures import Plane, plane, puncta, ridges

if TYPE_CHECKING:
    from collections.abc import Callable

    from chammi_fast.synthetic.scene import Scene


def chromatin(scene: Scene, *, grain: float = 0.15, nucleoli: float = 0.35) -> Plane:
    """Stain DNA: a grainy nucleus with a few darker nucleoli."""
    texture = 0.75 + grain * scene.noise(1.0) - nucleoli * nucleolus(scene)
    return plane(scene.nucleus * np.maximum(texture, 0))


def nucleolus(scene: Scene, *, per_cell: int = 3) -> Plane:
    """Stain a few round bodies within the nuclei."""
    inside = np.maximum(scene.nucleus_depth - 2 * scene.unit, 0)
    return plane(puncta(scene.rng, inside + 1e-6, per_cell * _cells(scene), 1.4 * scene.unit))


def nucleoplasm(scene: Scene) -> Plane:
    """Stain the nuclei evenly, but for the nucleoli."""
    return plane(chromatin(scene, grain=0.06, nucleoli=0.25) + 0.06 * scene.cytoplasm)


def speckles(scene: Scene, *, per_cell: int = 22) -> Plane:
    """Stain nuclear speckles: many small spots on a faint nucleus."""
    inside = np.maximum(scene.nucleus_depth - scene.unit, 0) > 0
    spots = puncta(scene.rng, inside + np.float32(1e-6), per_cell * _cells(scene), 0.8 * scene.unit)
    return plane(scene.nucleus * (0.2 + 1.2 * _saturate(spots)))


def golgi(scene: Scene, *, spread: float = 1.0, per_cell: int = 40) -> Plane:
    """Stain the Golgi apparatus: a cloud of spots at one side of the nucleus; `spread` 1 is compact, 3 dispersed."""
    along, across = scene.culture.along(scene.turn + scene.rng.uniform(-0.6, 0.6))
    offset = along - np.float32(11 * scene.unit)
    cloud = np.exp(-(np.square(offset / 4) + np.square(across / 8)) / np.float32(2 * (spread * scene.unit) ** 2))
    density = cloud * (scene.cytoplasm + np.float32(0.1) * scene.nucleus)
    spots = puncta(scene.rng, density + np.float32(1e-6), int(per_cell * spread) * _cells(scene), 0.7 * scene.unit)
    return plane(scene.cell * (1.1 * _saturate(spots) + 0.25 * cloud / spread))


def mitochondria(scene: Scene, *, fragments: float = 0.0, gather: float = 0.0) -> Plane:
    """Stain mitochondria: a worm-like net, `fragments` towards 1 in dots, `gather` towards 1 around the nucleus."""
    worms = ridges(scene.noise(1.3), 0.28) * np.clip(scene.noise(2.2) + 0.7 - 1.1 * fragments, 0, 1.2)
    dots = np.clip(scene.noise(0.8) - 1.1, 0, 1)
    reach = scene.near ** np.float32(1.2 + 2.5 * gather)
    return plane(scene.cytoplasm * reach * ((1 - fragments) * worms + 1.3 * fragments * dots + 0.12))


def microtubules(scene: Scene) -> Plane:
    """Stain microtubules: fine fibres that run from the nucleus to the rim."""
    fibres = ridges(scene.culture.rays(scene.rng, (2.2, 7.0), scene.reach * 1.4), 0.4)
    haze = 0.25 + 0.75 * fibres
    return plane((scene.cytoplasm * haze + 0.12 * scene.nucleus) * scene.near)


def reticulum(scene: Scene, *, grain: float = 1.0) -> Plane:
    """Stain the endoplasmic reticulum: a fine net, dense at the nucleus; `grain` scales its meshes."""
    net = ridges(scene.noise(0.75 * grain), 0.7)
    return plane((scene.cytoplasm + 0.2 * scene.nucleus) * scene.near * (0.4 + 0.6 * net))


def cytosol(scene: Scene) -> Plane:
    """Stain the cytoplasm evenly, the nuclei faintly."""
    return plane((scene.cytoplasm * (0.35 + 0.65 * scene.near) + 0.3 * scene.nucleus) * (0.8 + 0.06 * scene.noise(1.6)))


def membrane(scene: Scene) -> Plane:
    """Stain the plasma membrane: a bright rim and a faint sheet with ruffles."""
    sheet = 0.35 + 0.04 * scene.noise(0.6) + 0.04 * scene.noise(3.0)
    return plane(scene.cell * sheet + 0.65 * scene.rim(2.5))


def tight_junctions(scene: Scene) -> Plane:
    """Stain tight junctions: a thin, beaded line along the rim."""
    beads = np.clip(0.75 + 0.35 * scene.noise(1.0), 0, 1.4)
    return plane(scene.rim(1.8) * beads + 0.08 * scene.cell)


def centrioles(scene: Scene) -> Plane:
    """Stain centrioles: two small spots beside the nucleus on a faint cell."""
    along, across = scene.culture.along(scene.turn + scene.rng.uniform(-np.pi, np.pi))
    gap = np.float32(1.4 * scene.unit)
    where = np.square(along - np.float32(9 * scene.unit))
    pair = [np.exp(-(where + np.square(across - side)) / np.float32(1.6 * scene.unit**2)) for side in (-gap, gap)]
    return plane(1.1 * (pair[0] + pair[1]) + 0.1 * scene.cell * scene.near)


def actin_bundles(scene: Scene) -> Plane:
    """Stain actin bundles: long parallel fibres across the cell."""
    _, across = scene.culture.along(scene.turn)
    steps = scene.rng.standard_normal(256).astype(np.float32)
    wander = across / np.float32(0.8 * scene.unit) + 2.0 * scene.noise(8.0)
    fibres = np.clip(np.interp(wander % 255, np.arange(256), steps).astype(np.float32) - 0.4, 0, 1.2)
    return plane(scene.cell * (0.15 + 0.6 * fibres) + 0.25 * scene.rim(2.5))


def _saturate(spots: Plane) -> Plane:
    """Compress overlapping spots, so that a heap of them is not many times as bright as one."""
    return plane(spots / (1 + np.float32(0.45) * spots))


def _cells(scene: Scene) -> int:
    return int(scene.culture.owner.max()) + 1


PROTEINS: dict[str, Callable[[Scene], Plane]] = {
    "actin bundles": actin_bundles,
    "centrioles": centrioles,
    "cytosol": cytosol,
    "endoplasmic reticulum": reticulum,
    "golgi apparatus": golgi,
    "microtubules": microtubules,
    "mitochondria": mitochondria,
    "nuclear speckles": speckles,
    "nucleoplasm": nucleoplasm,
    "tight junctions": tight_junctions,
}
