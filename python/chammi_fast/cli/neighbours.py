"""``chammi-fast neighbours``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chammi_fast.cli.console import console, image_progress, memory_size, ray_executor, warn_of_mixed_installations


def neighbours(
    *,
    queries: Annotated[str, typer.Option(help="Folder of an embedding table: whose neighbours are sought.")],
    out: Annotated[str, typer.Option(help="Parquet file for query, rank, neighbour and similarity.")],
    references: Annotated[
        str | None,
        typer.Option(
            help="Folder of the embedding table in which they are sought; by default among the queries alone."
        ),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours of each query.")] = 10,
    metric: Annotated[Literal["cosine", "l2"], typer.Option(help="Cosine, or Euclidean distance.")] = "cosine",
    exclude_same: Annotated[
        str,
        typer.Option(
            help="Column, or 'plate,well': no row is compared with rows of its own; '' compares all, a row with itself."
        ),
    ] = "key",
    where: Annotated[str | None, typer.Option(help="Rows of the queries, as in embed.")] = None,
    references_where: Annotated[
        str | None, typer.Option(help="Rows of the references, by default of the same table.")
    ] = None,
    memory: Annotated[
        str, typer.Option(help="For rows, such as 500MB or 4GB: larger tables are read block by block.")
    ] = "1GB",
    threads: Annotated[int | None, typer.Option(min=1, help="By default one per processor.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Search on the Ray cluster at this address.")
    ] = None,
    ray_workers: Annotated[
        int, typer.Option(min=0, help="For --ray: workers at most; 0 takes all that the cluster has room for.")
    ] = 0,
) -> None:
    """Find the nearest rows of an embedding table, exactly, however large it is.

    chammi-fast neighbours --queries cells/ --k 10 --exclude-same Metadata_Plate --out neighbours.parquet

    chammi-fast neighbours --queries new-cells/ --references all-cells/ --memory 1GB --out neighbours.parquet

    On a Ray cluster: the same, with --ray auto
    """
    from pyarrow import parquet

    from chammi_fast.embedding_table import EmbeddingTable
    from chammi_fast.errors import TableError
    from chammi_fast.evaluation.finding import SCHEMA, stream_neighbours
    from chammi_fast.files import make_folder, replacing
    from chammi_fast.urls import as_path

    warn_of_mixed_installations()
    executor = ray_executor(ray, ray_workers)
    size = memory_size(memory)
    asked = table = EmbeddingTable(queries, where)
    if references is not None or references_where is not None:
        table = EmbeddingTable(references or queries, references_where)
    for one, rows in ((asked, where), (table, references_where)):
        if rows is not None and not len(one):
            raise TableError(f"{one.folder}: no rows where {rows}.")
    file = as_path(out)
    make_folder(file.parent)
    found = 0
    with image_progress("queries") as bar, replacing(file) as temporary:
        tables = stream_neighbours(
            asked,
            table,
            k=k,
            metric=metric,
            exclude_same=[column.strip() for column in exclude_same.split(",") if column.strip()],
            memory=size,
            threads=threads,
            executor=executor,
            progress=lambda done, total: bar(asked.folder.name, done, total),
        )
        with parquet.ParquetWriter(temporary, SCHEMA) as writer:
            for answer in tables:
                writer.write_table(answer)
                found += answer.num_rows
    console().print(
        f"{found:,} neighbours of {len(asked):,} rows among {len(table):,} -> {out}", soft_wrap=True, markup=False
    )
