"""Read images into arrays, and files or the cells of whole fields of view into batches ready for a network.

Decoding, refolding and preprocessing happen in C++ without the interpreter's lock; these modules validate what is
asked, and turn what became of each image into an error or a status.
"""

from chammi_fast.images.batches import Batch, load_batch, stream_batches
from chammi_fast.images.cropping import CropBatch, CropSettings, Field
from chammi_fast.images.environment import apply_environment
from chammi_fast.images.fields import cut_crops, load_crops, stream_crops
from chammi_fast.images.preprocess import Preprocess
from chammi_fast.images.reading import ImageInfo, probe, read_image, read_planes, refold
from chammi_fast.images.status import PIXEL_LIMIT, ImageStatus

__all__ = [
    "PIXEL_LIMIT",
    "Batch",
    "CropBatch",
    "CropSettings",
    "Field",
    "ImageInfo",
    "ImageStatus",
    "Preprocess",
    "cut_crops",
    "load_batch",
    "load_crops",
    "probe",
    "read_image",
    "read_planes",
    "refold",
    "stream_batches",
    "stream_crops",
]

apply_environment()
