"""What the page says: titles, numbers at its head, remarks, and where everything comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chammi_fast.chammi import DATA_SETS
from chammi_fast.evaluation.benchmark import is_chammi
from chammi_fast.evaluation.display import remarks, title
from chammi_fast.reporting import explorer, published, tables, words
from chammi_fast.reporting.drawing import kind_style
from chammi_fast.reporting.page import Origin, Page, Tile
from chammi_fast.reporting.pairs import compare_results
from chammi_fast.reporting.radar import FEWEST_TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.reporting.drawing import Figure
    from chammi_fast.reporting.projection import Map
    from chammi_fast.reporting.results import Result

_NO_DIAGNOSTICS = (
    "These results hold no diagnostics of batch effects: chammi-fast evaluate computes them where its options "
    "--diagnose or --exclude-same name columns, such as the plate's."
)

_NAMED = 4
_NO_RADAR = f"A radar needs at least {FEWEST_TASKS} tasks: these results are compared task by task below."


def make_page(
    results: Sequence[Result], drawn: Sequence[Figure], maps: Sequence[Map], reasons: list[str], *, benchmark: bool
) -> Page:
    """Put together what stands on the page.

    Parameters
    ----------
    reasons : why cells of some results are not on any map
    benchmark : whether these are CHAMMI's tasks, which published scores stand beside
    """
    predicting, excluding = tables.predicting(results), tables.excluding(results)
    comparisons, comparison_notes = compare_results(results)
    skipped = list(
        dict.fromkeys(f"{what}: {why}" for one in results for what, why in one.scores.diagnostics.skipped.items())
    )
    page = Page(
        title=_title(results),
        lead=_lead(results),
        tiles=[_tile(place, one) for place, one in enumerate(results)],
        remarks=_remarks(results),
        overview=tables.overview(results, published=benchmark),
        by_task=tables.by_task(results),
        by_class=tables.by_class(results),
        published_notes=_published_notes(results, benchmark=benchmark),
        comparisons=tables.compared(comparisons),
        comparison_notes=comparison_notes,
        drawn=drawn,
        radar_notes=[] if any(one.group == "radar" for one in drawn) else [_NO_RADAR],
        umap_notes=reasons,
        map_notes=reasons,
        predicting=predicting,
        excluding=excluding,
        batch_notes=skipped if predicting or excluding else [_NO_DIAGNOSTICS, *skipped],
        provenance=[_origin(one) for one in results],
    )
    return _with_map(page, maps) if maps else page


def _with_map(page: Page, maps: Sequence[Map]) -> Page:
    data, remarks_of_map = explorer.payload(maps)
    pictured = any(one["channelCount"] for one in data["dataSets"].values())
    return replace(
        page,
        map=data,
        map_names=[f"{one.cells.data_set}, {one.cells.model}".removeprefix(", ") for one in maps],
        map_notes=[*_map_notes(maps, pictured=pictured), *remarks_of_map, *page.map_notes],
        plot=explorer.plot(),
    )


def _title(results: Sequence[Result]) -> str:
    names = [words.short(one.name, 40) for one in results]
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} others"]
    benchmarks = {one.scores.provenance.benchmark for one in results} - {""}
    return words.listed(names) + (f" on {words.listed(sorted(benchmarks))}" if benchmarks else "")


def _lead(results: Sequence[Result]) -> str:
    tasks = {task for one in results for task in one.scores.tasks}
    most = max(sum(task.n for task in one.scores.tasks.values()) for one in results)
    how = words.listed(list(dict.fromkeys(title(one.scores) for one in results)))
    return f"{how}: {words.plural(len(tasks), 'task')}, {words.plural(most, 'test cell')}."


def _tile(place: int, result: Result) -> Tile:
    scores = result.scores
    colour = kind_style(place)[0]
    if scores.averages:
        name, average = list(scores.averages.items())[-1]  # which stands for those above it
        what = name if name == "CPS" else f"macro F1, {name}"
        return Tile(result.name, colour, words.score(average.f1_macro), what, words.between(average.interval))
    if len(scores.tasks) == 1:
        ((name, task),) = scores.tasks.items()
        interval = words.between(task.intervals.get("f1_macro"))
        what = f"macro F1, {words.task_title(name)}"
        return Tile(result.name, colour, words.score(task.f1_macro), what, interval)
    mean = sum(task.f1_macro for task in scores.tasks.values()) / len(scores.tasks)
    return Tile(result.name, colour, words.score(mean), f"mean macro F1 of {len(scores.tasks)} tasks", "")


def _remarks(results: Sequence[Result]) -> list[str]:
    """Say what keeps the results from being compared as they stand."""
    found = []
    rows: dict[str, set[str]] = {}
    for one in results:
        for data_set, digest in one.scores.provenance.data_sha256.items():
            rows.setdefault(data_set, set()).add(digest)
    for data_set, digests in rows.items():
        if len(digests) > 1:
            where = f"The results of {data_set}" if data_set else "The results"
            found.append(f"{where} are about different cells or labels: their scores do not compare one to one.")
    if len({title(one.scores) for one in results}) > 1:
        found.append(
            "The results were scored in different ways: "
            + "; ".join(f"{one.name}: {title(one.scores)}" for one in results)
            + "."
        )
    found += [
        f"{one.name}: a quick look at a sample of the rows; the full scores will differ."
        for one in results
        if one.scores.provenance.sample is not None
    ]
    return found


def _published_notes(results: Sequence[Result], *, benchmark: bool) -> list[str]:
    if not benchmark:
        return ["There are no published scores to show beside these: they are of CHAMMI's nine tasks only."]
    rest = "Tables 4 and 5 leave out the first task of each data set. What the paper calls WTC is Allen here."
    notes = [f"Published rows: {published.SOURCE}. {rest}", published.CONTRADICTION]
    counts = {f"{one.name}/{task.name}": task.rows for one in DATA_SETS.values() for task in one.tasks}
    notes += [note for one in results for note in _scored_otherwise(one)]
    for one in results:
        other = [name for name, task in one.scores.tasks.items() if task.n != counts.get(name)]
        if other:
            name = other[0]
            notes.append(
                f"{one.name} was not scored on the cells of the paper ({words.task_title(name)}: "
                f"{one.scores.tasks[name].n:,} cells here, {counts.get(name, 0):,} there): its scores and the "
                "published ones do not compare."
            )
    return notes


def _scored_otherwise(result: Result) -> list[str]:
    """Say what differs from the rule of the published scores: the nearest neighbour's label, by cosine."""
    origin = result.scores.provenance
    other = [] if (origin.classifier, origin.k, origin.metric) == ("knn", 1, "cosine") else [title(result.scores)]
    other += [] if is_chammi(origin.benchmark_sha256) else [f"tasks of {origin.benchmark or 'a table'}"]
    if not other:
        return []
    rule = "was not scored as in the paper, which takes the label of the nearest neighbour by cosine"
    rest = "its scores and the published ones do not compare"
    return [f"{result.name} {rule} ({'; '.join(other)}): {rest}."]


def _map_notes(maps: Sequence[Map], *, pictured: bool) -> list[str]:
    notes = []
    for one in maps:
        shown, total = len(one.cells.shown), one.cells.total
        if shown < total:
            where = f"{one.cells.data_set}, {one.cells.model}" if one.cells.data_set else one.cells.model
            notes.append(f"{where}: {shown:,} of {total:,} cells are shown; their neighbours are sought among these.")
    if pictured:
        notes.append(
            "Pictures show each channel from black to white over one range of brightness for all cells of a data set, "
            "so that a dim cell looks dim."
        )
    return notes


def _origin(result: Result) -> Origin:
    origin = result.scores.provenance
    facts = [
        ("results", str(result.folder)),
        ("features", origin.features + ("" if result.features else " (not there any more)")),
        ("scored by", title(result.scores)),
    ]
    if origin.benchmark:
        facts.append(("tasks", f"{origin.benchmark}, SHA-256 {origin.benchmark_sha256}"))
    for data_set, digest in origin.data_sha256.items():
        facts.append((f"data of {data_set}" if data_set else "data", f"SHA-256 {digest} of keys and labels"))
    # One model that embeds several data sets is described once.
    described: dict[tuple[str, str], list[str]] = {}
    for data_set, model in origin.models.items():
        described.setdefault((_model(model), _versions(model.get("versions", {}))), []).append(data_set)
    for (model_facts, made_with), data_sets in described.items():
        of = f" of {words.listed(data_sets)}" if data_sets != [""] else ""
        facts += [(f"model{of}", model_facts), (f"embedding{of} with", made_with)]
    facts.append(("scored with", _versions(origin.versions)))
    return Origin(result.name, facts, remarks(result.scores))


def _model(model: dict[str, object]) -> str:
    said = {name: value for name, value in model.items() if name != "versions"}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
