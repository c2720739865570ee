"""The CHAMMI benchmark as published: data sets, channels, tasks, labels, counts, statistics.

Source: Chen et al., "CHAMMI: a benchmark for channel-adaptive models in microscopy imaging", NeurIPS 2023, and the
authors' published code and data release.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAIN = "Train"
SPLIT_COLUMN = "train_test_split"
LABEL_COLUMN = "Label"
LABEL_COLUMNS = ("Label", "label")  # in a data set's own table, in a merged one
TRUE_TEXTS = ("true", "1", "1.0")  # of a boolean column in lower case, whatever wrote it


@dataclass(frozen=True)
class Task:
    """One test task of a data set.

    Attributes
    ----------
    name : the task's boolean column in ``enriched_meta.csv`` and its value of `train_test_split`
    rows : published number of test rows
    leave_out : column of the groups left out one at a time, or None where the training rows alone are the reference;
        how tasks are scored is said in ``assets/tasks/chammi.toml``
    novel_labels : labels of the task that no training row has
    """

    name: str
    rows: int
    leave_out: str | None = None
    novel_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """One data set of the benchmark.

    Attributes
    ----------
    channels : names in tape order
    height, channel_width : of one channel in pixels; a tape is (height, channels * channel_width) uint8
    suffix : of the image files
    images, train_rows : published numbers of rows
    train_labels : labels of the training rows
    mean, std : per channel, of training pixels scaled to [0, 1] (published training code)
    id_column, group_columns : identifying and grouping columns of ``enriched_meta.csv``
    """

    name: str
    channels: tuple[str, ...]
    height: int
    channel_width: int
    suffix: str
    images: int
    train_rows: int
    train_labels: tuple[str, ...]
    tasks: tuple[Task, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    id_column: str
    group_columns: tuple[str, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """Token names of the channels in tape order, such as "CP/nucleus"."""
        return tuple(f"{self.name}/{channel}" for channel in self.channels)


ALLEN = DataSet(
    name="Allen",
    channels=("nucleus", "membrane", "protein"),
    height=238,
    channel_width=374,
    suffix=".ome.tiff",
    images=65_103,
    train_rows=31_060,
    train_labels=("M0", "M1M2", "M3", "M4M5", "M6M7_complete", "M6M7_single"),
    tasks=(Task("Task_one", 12_419), Task("Task_two", 21_624)),
    mean=(0.17299604, 0.21203263, 0.06717164),
    std=(0.1803914, 0.1947802, 0.08771174),
    id_column="ID",
    group_columns=("Structure",),
)
HPA = DataSet(
    name="HPA",
    channels=("microtubules", "protein", "nucleus", "er"),
    height=512,
    channel_width=512,
    suffix=".png",
    images=66_936,
    train_rows=32_725,
    train_labels=("golgi apparatus", "microtubules", "mitochondria", "nuclear speckles"),
    tasks=(
        Task("Task_one", 13_051),
        Task("Task_two", 5_994),
        Task(
            "Task_three",
            15_166,
            leave_out="cell_type",
            novel_labels=("nucleoplasm", "cytosol", "endoplasmic reticulum"),
        ),
    ),
    mean=(0.08290475, 0.04112732, 0.064044476, 0.08445487),
    std=(0.08106554, 0.052796874, 0.0885671, 0.0815554),
    id_column="ID",
    group_columns=("cell_type",),
)
CP = DataSet(
    name="CP",
    channels=("nucleus", "er", "rna", "golgi", "mito"),
    height=160,
    channel_width=160,
    suffix=".png",
    images=88_245,
    train_rows=36_360,
    train_labels=("BRD-A29260609", "BRD-K04185004", "BRD-K21680192", "DMSO"),
    tasks=(
        Task("Task_one", 13_065),
        Task("Task_two", 16_395),
        Task("Task_three", 10_075),
        Task(
            "Task_four",
            12_350,
            leave_out="Plate",
            novel_labels=("BRD-K11129031", "BRD-K62310379", "BRD-K77947974"),
        ),
    ),
    mean=(0.09957533, 0.19229738, 0.16250879, 0.18240248, 0.14978176),
    std=(0.077283904, 0.074369825, 0.06784963, 0.066472545, 0.068180084),
    id_column="Key",
    group_columns=("Plate", "source"),
)
DATA_SETS = {data_set.name: data_set for data_set in (ALLEN, HPA, CP)}
