"""The page: from a study to HTML. All text is escaped; the page loads nothing, and runs no script but its own."""

import base64
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpt2x import __version__
from gpt2x.paths import shown
from gpt2x.reports.page import charts, overview
from gpt2x.reports.page.compared import compared
from gpt2x.reports.page.printable import printable
from gpt2x.reports.page.reproduce import reproduction_of
from gpt2x.reports.page.study import Group, Study, label, value_of
from gpt2x.reports.page.svg import svg_of
from gpt2x.reports.page.texts import texts_of
from gpt2x.reports.page.validations import MOST_MAPS, validations_of
from gpt2x.runs.collect import short_names

_TEMPLATES = Path(__file__).parent
_TITLES = {
    "failures": "Runs that are not done",
    "validations": "Validations",
    "generations": "Scores of the settings",
    "texts": "Texts",
    "evaluations": "Evaluation",
    "training": "Training",
    "benchmarks": "Benchmark",
    "runs": "All runs",
    "reproduce": "How to reproduce",
}
"""The sections of the page in their order, by id."""
_MOST_CURVES, _MOST_BENCHMARKS, _MOST_TEXTS_OF_EVALUATION = 7, 6, 200


def render(study: Study) -> str:
    """The page as HTML. Adds what it cannot read to the notes of the study."""
    groups = study.groups
    content = {
        "folder": shown(study.folder),
        "name": study.folder.absolute().name or str(study.folder.absolute()),
        "version": __version__,
        "n_runs": len(study.runs),
        "counts": overview.counts_of(study.runs),
        "kinds": overview.kinds_of(study),
        "replaced": study.replaced,
        "stale": study.stale,
        "failures": overview.failures_of(study),
        "validations": validations_of(groups["validate"], study.notes) if "validate" in groups else None,
        "comparisons": {task: compared(group) for task, group in groups.items()},
        "texts": texts_of(groups["generate"]) if "generate" in groups else None,
        "evaluation": _evaluation(groups["evaluate"]) if "evaluate" in groups else None,
        "training": _training(groups["train"]) if "train" in groups else None,
        "benchmarks": _benchmarks(groups["benchmark"]) if "benchmark" in groups else None,
        "tables": [overview.run_table(group, study.folder) for group in groups.values()],
        "reproduction": reproduction_of(study),
        "most": {"maps": MOST_MAPS, "failures": overview.MOST_FAILURES, "runs": overview.MOST_RUNS},
        "notes": study.notes,
    }
    content["sections"] = _sections(content)
    script, style = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template("page.html.jinja")
    return page.render(content, script=script, script_digest=digest, style=style)


def _sections(content: dict[str, Any]) -> dict[str, str]:
    """The ids and the titles of the sections of this page, for its navigation."""
    texts, evaluation, training, benchmarks = (
        content[key] for key in ("texts", "evaluation", "training", "benchmarks")
    )
    present = {
        "failures": bool(content["failures"]),
        "validations": content["validations"] is not None and bool(content["validations"].shown),
        "generations": "generate" in content["comparisons"] and content["comparisons"]["generate"].total > 0,
        "texts": texts is not None and texts.total > 0,
        "evaluations": evaluation is not None and evaluation["total"] > 0,
        "training": training is not None and training["total"] > 0,
        "benchmarks": benchmarks is not None and benchmarks["total"] > 0,
        "runs": content["n_runs"] > 0,
        "reproduce": content["n_runs"] > 0,
    }
    return {id: title for id, title in _TITLES.items() if present[id]}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "shown": shown}
    return environment


def _finalize(value: Any) -> Any:
    """What an expression of the template gives, before it is escaped; Markup is the page's own."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _evaluation(group: Group) -> dict[str, Any]:
    names = short_names(group.swept)
    rows = [
        ([label(value_of(result.run.job, key)) for key in group.swept], row)
        for result in group.results
        for row in result.rows
    ]
    return {
        "settings": [names[key] for key in group.swept],
        "rows": rows[:_MOST_TEXTS_OF_EVALUATION],
        "total": len(rows),
    }


def _training(group: Group) -> dict[str, Any]:
    """The curves of the runs with the lowest validation loss."""
    names = short_names(group.swept)
    curves = [
        (", ".join(charts.short(value_of(result.run.job, key)) for key in group.swept), result.rows)
        for result in group.results
        if result.rows
    ]
    by_loss = sorted(range(len(curves)), key=lambda i: min(row.val_loss for row in curves[i][1]))
    drawn = [curves[i] for i in sorted(by_loss[:_MOST_CURVES])]
    settings = ", ".join(names[key] for key in group.swept)
    svg = svg_of(lambda: charts.training_chart(settings, drawn), "training", "Loss against steps") if drawn else None
    return {"svg": svg, "shown": len(drawn), "total": len(curves)}


def _benchmarks(group: Group) -> dict[str, Any]:
    found = [result for result in group.results if result.rows]
    drawn = [
        (
            shown(result.run.folder),
            svg_of(partial(charts.benchmark_chart, result.rows), f"bars{i}", "Time of a step"),
        )
        for i, result in enumerate(found[:_MOST_BENCHMARKS])
    ]
    return {"shown": drawn, "total": len(found)}
