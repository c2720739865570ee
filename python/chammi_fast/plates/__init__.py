"""Plates of a screen as manifests: LoadData tables or folders of images, cells, illumination functions, plate maps."""

from chammi_fast.plates.cells import Cells
from chammi_fast.plates.masks import Masks
from chammi_fast.plates.plate import Plate, PlateField, Unit, open_plate

__all__ = ["Cells", "Masks", "Plate", "PlateField", "Unit", "open_plate"]
