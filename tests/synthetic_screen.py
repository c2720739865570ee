"""A screen of which everything is known: embeddings of cells on 384-well plates, made with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast.table import make_part, part_name

if TYPE_CHECKING:
    from pathlib import Path

ROWS, COLUMNS = 16, 24
COMPOUNDS, ACTIVE, MECHANISMS = 80, 40, 10
CONTROL = 'Metadata_pert_type == "negcon"'


@dataclass(frozen=True)
class Screen:
    """A screen.

    Attributes
    ----------
    rows : one per cell
    matrix : (N, D) float32
    active : compounds that do something; the others do nothing at all
    """

    rows: pa.Table
    matrix: np.ndarray
    active: frozenset[str]

    def write(self, folder: Path, parts: int = 5, *, shuffled: bool = False, dtype: type = np.float32) -> Path:
        """Write the embedding table; shuffled cells are those of a run over cells in no order."""
        folder.mkdir(parents=True, exist_ok=True)
        order = np.arange(len(self.matrix))
        if shuffled:
            np.random.default_rng(5).shuffle(order)
        for number, places in enumerate(np.array_split(order, parts)):
            keys = [f"cell {place}" for place in places]
            part = make_part(keys, self.rows.take(places), self.matrix[places].astype(dtype))
            parquet.write_table(part, folder / part_name(number), row_group_size=1000, compression="zstd")
        return folder


def wells(plate: int) -> dict[str, list[str]]:
    """Return the wells of a plate in reading order: 64 controls, and four times 80 compounds, elsewhere on each."""
    names = [f"{chr(65 + row)}{column + 1:02d}" for row in range(ROWS) for column in range(COLUMNS)]
    compounds = ["DMSO"] * 64 + [f"compound {place % COMPOUNDS:02d}" for place in range(320)]
    np.random.default_rng(100 + plate).shuffle(compounds)
    kinds = ["negcon" if name == "DMSO" else "trt" for name in compounds]
    moas = ["" if name == "DMSO" else mechanism_of(name) for name in compounds]
    return {"Metadata_Well": names, "Metadata_compound": compounds, "Metadata_pert_type": kinds, "Metadata_moa": moas}


def mechanism_of(compound: str) -> str:
    """Return a compound's mechanism: those that do something share ten, each inert one has its own."""
    number = int(compound.split()[1])
    return f"mechanism {number % MECHANISMS}" if number < ACTIVE else f"inert {number}"


def make_screen(plates: int = 2, cells: int = 5, size: int = 48, seed: int = 0) -> Screen:
    """Make a screen: effects of mechanisms and compounds, under larger ones of plates, positions and wells.

    The nuisance lives in a few directions that controls show as well; effects are small and in directions of their own.
    """
    random = np.random.default_rng(seed)
    nuisance = random.standard_normal((6, size))
    by_mechanism = 0.5 * random.standard_normal((MECHANISMS, size))
    by_compound = 0.25 * random.standard_normal((ACTIVE, size))
    matrices, tables = [], []
    for plate in range(plates):
        columns = wells(plate)
        offset = 2 * random.standard_normal(size)
        stretch = random.uniform(0.5, 2, size)
        row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
        edge = (row % (ROWS - 1) == 0) | (column % (COLUMNS - 1) == 0)
        position = np.stack([row / ROWS, column / COLUMNS, edge], axis=1) @ (1.5 * nuisance[:3])
        per_well = position + 0.7 * random.standard_normal((ROWS * COLUMNS, 6)) @ nuisance
        per_well += 0.15 * random.standard_normal(per_well.shape)
        for place, name in enumerate(columns["Metadata_compound"]):
            number = int(name.split()[1]) if name != "DMSO" else COMPOUNDS
            if number < ACTIVE:
                per_well[place] += by_mechanism[number % MECHANISMS] + by_compound[number]
        repeated = np.repeat(np.arange(ROWS * COLUMNS), cells)
        noise = random.standard_normal((len(repeated), size))
        matrices.append(((per_well[repeated] + noise) * stretch + offset).astype(np.float32))
        table = pa.table({"Metadata_Plate": [f"plate {plate}"] * len(repeated)} | {
            key: [values[place] for place in repeated] for key, values in columns.items()
        })  # fmt: skip
        tables.append(table.append_column("Metadata_ObjectNumber", pa.array(np.arange(len(repeated)))))
    active = frozenset(f"compound {number:02d}" for number in range(ACTIVE))
    return Screen(pa.concat_tables(tables), np.concatenate(matrices), active)
