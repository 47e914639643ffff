"""What validate prints: the verdict, all causes, a table of the stages, both models' texts, the two questions."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Check, Metric, Mode, Status, Verdict
from gpt2x.parity.measures import ERROR_RATIO
from gpt2x.parity.rows import SideBySideRow, mode_text
from gpt2x.parity.subject.names import rename_setting, some
from gpt2x.parity.validation import Validation
from gpt2x.paths import shown
from gpt2x.reports import console
from gpt2x.visible import visible

_WIDTH = 80  # columns of the causes
_LONG = 60.0  # seconds


@contextmanager
def progress_bar(n_steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar, with a function to call when a step begins: it ends the step before and shows the description."""
    with console.progress(TextColumn("{task.description}"), BarColumn()) as bar:
        task = bar.add_task("", total=n_steps)
        begun = False

        def begin(step: str) -> None:
            nonlocal begun
            bar.update(task, advance=int(begun), description=step)
            begun = True

        yield begin


def tell_duration(seconds: float, all_stages: bool) -> None:
    """Says on stderr how long a validation takes, if it is more than a minute."""
    if seconds > _LONG:
        about = "about" if all_stages else "less than about"
        text = f"gpt2x: validating takes {about} {seconds / 60:.0f} min, by the time of products of this size here"
        console.err.print(text, soft_wrap=True)


def show(v: Validation, picture: Path | None, fixes: Sequence[Text] = ()) -> None:
    """Prints a validation, with the lines that say how to mend it, and with the path of its heat map."""
    out = console.out
    out.print(headline(v), soft_wrap=True)
    for line in fixes:
        out.print(line, soft_wrap=True)
    for table in tables(v):
        out.print(table)
    for line in answers(v):
        out.print(line, soft_wrap=True)
    if picture is not None:
        link = Text(shown(picture), f"link {picture.resolve().as_uri()}")
        out.print(Text.assemble("heat map         ", link), soft_wrap=True)


def tables(v: Validation) -> list[Table]:
    """The stages, and both models' texts."""
    return [_stages(v), *(_texts(v, texts) for texts in v.side_by_side)]


def answers(v: Validation) -> list[Text]:
    """What to know of the subject, how its names were found, the two questions, and why checks were skipped."""
    notes = [Text(visible(f"subject          {note}")) for note in v.notes]
    unchecked = [
        Text(visible(f"not checked      {', '.join(sites)}: {reason}"), "yellow")
        for reason, sites in _unchecked(v).items()
    ]
    return [*notes, *_names(v), _same_function(v), _as_accurate(v), *unchecked]


def headline(v: Validation) -> Text:
    """The verdict, and one paragraph of 80 columns per cause."""
    return Text("\n").join([verdict(v), *map(Text, causes(v))])


def causes(v: Validation) -> list[str]:
    """One paragraph per cause, with its number."""
    found = v.diagnosis.causes if v.diagnosis else []
    return [
        "\n".join(
            textwrap.wrap(
                visible(f"{some(each.sites)}: {each.cause}"),
                _WIDTH,
                initial_indent=f"{number:>3}. ",
                subsequent_indent=" " * 5,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
        for number, each in enumerate(found, 1)
    ]


def verdict(v: Validation) -> Text:
    """One line: PASS or FAIL, and what was found."""
    word, style, line = ("PASS", "bold green", _passed(v)) if v.passed else ("FAIL", "bold red", _failed(v))
    return Text.assemble((word, style), f"  {visible(line)}")


def _reference(v: Validation) -> str:
    return f"transformers {v.record.facts.transformers}"


def _stages(v: Validation) -> Table:
    """One line per stage and mode, with the worst of its checks; parity.csv has all of them."""
    checkpoint = v.checkpoint
    device = checkpoint.model.lm_head.weight.device.type
    heading = f"{checkpoint.name} · {checkpoint.weights} · {v.dtype} on {device} · {v.subject} against {_reference(v)}"
    numbers = (Column(heading, justify="right") for heading in ("checks", "worst", "allowed"))
    table = console.plain_table(Column("stage"), Column("how"), *numbers, Column("result", ratio=1))
    table.title, table.title_justify, table.title_style = console.as_text(heading), "left", "bold"
    groups: dict[tuple[Stage, str], list[Check]] = {}
    for check in v.checks:
        if check.bad or (check.status is Status.OK and _is_judged(check)):
            groups.setdefault((check.stage, mode_text(check)), []).append(check)
    last = None
    for (stage, mode), group in groups.items():
        bad = [check for check in group if check.bad]
        worst = bad[0] if bad else max(group, key=_share_of_allowed)
        cells = (str(len(group)), _number(worst.value), _number(worst.tolerance))
        table.add_row("" if stage == last else stage, mode, *cells, _bad(bad) if bad else _ok(worst))
        last = stage
    return table


def _bad(bad: list[Check]) -> Text:
    return console.as_text(f"{len(bad)} {bad[0].status}: {bad[0].site} {bad[0].text}", "red")


def _ok(worst: Check) -> Text:
    measured = (worst.metric or "").replace("_", " ")
    return Text.assemble(("ok", "green"), console.as_text(f"  {measured}"))


def _is_judged(check: Check) -> bool:
    """Whether a check that is ok stands for its stage: what is informational, or centred, is in parity.csv only."""
    return check.mode is not Mode.CENTRED and (check.tolerance is not None or check.stage is Stage.GENERATION)


def _share_of_allowed(check: Check) -> float:
    """How much of its tolerance a check uses; 0 where the tolerance is a minimum.

    Where tokens are counted that are the same, the fewest are the worst.
    """
    if check.metric in (Metric.P_VALUE, Metric.TOP1_AGREEMENT):
        return 0.0
    if check.value is None or not check.tolerance:
        return -(check.value or 0.0)
    return check.value / check.tolerance


def _texts(v: Validation, texts: SideBySideRow) -> Table:
    pair = Table(title=console.as_text(f"greedy: {texts.prompt!r}"), title_justify="left", expand=True)
    pair.add_column(console.as_text(v.subject), ratio=1)
    pair.add_column(_reference(v), ratio=1)
    pair.add_row(*map(console.as_line, (texts.subject_text, texts.reference_text)))
    return pair


def _same_function(v: Validation) -> Text:
    exact = v.exact
    value = v.logits(exact, Metric.RELATIVE_DIFFERENCE)
    if value is None:
        return Text("same function?   not checked", "yellow")
    numbers = f"{value:.2g} of the reference's scale in {exact}, allowed {v.tolerance:g}"
    if exact != "float64":
        why = "float64 does not fit in memory" if exact == v.record.facts.exact else f"recorded in {exact}"
        numbers += f"; {why}, so this is a tolerance for the dtype"
    return Text.assemble("same function?   ", _yes(value <= v.tolerance), numbers)


def _as_accurate(v: Validation) -> Text:
    value = v.logits(v.dtype, Metric.ERROR_RATIO)
    if value is None:
        ratios = [check for check in v.checks if check.metric is Metric.ERROR_RATIO]
        reasons = [check.note for check in ratios if check.status is Status.SKIPPED]
        return Text(visible(f"as accurate?     not checked: {(reasons or ['no logits compared'])[0]}"), "yellow")
    if v.dtype == "int8":
        kl, agreement = v.logits(v.dtype, Metric.MEAN_KL), v.logits(v.dtype, Metric.TOP1_AGREEMENT)
        numbers = f"mean KL {kl:.2g} nats, top-1 agreement {agreement:.1%}, {value:.2g} times the error"
        return Text.assemble(
            "as accurate?     ", ("informational  ", "yellow"), f"{numbers} of float32: what int8 costs"
        )
    numbers = f"{value:.3g} times the reference's own error in {v.dtype}, allowed {ERROR_RATIO:g}"
    return Text.assemble("as accurate?     ", _yes(value <= ERROR_RATIO), numbers)


def _names(v: Validation) -> list[Text]:
    """How the subject's names were mapped, as a setting that maps them in the same way."""
    if not v.named_by_structure:
        return []
    setting = rename_setting(v.named_by_structure)
    return [Text(visible(f"names            found by structure; the same as {setting}"))]


def _unchecked(v: Validation) -> dict[str, list[str]]:
    """Reason -> the stages, or the modules, that were not checked for it."""
    reasons: dict[str, list[str]] = {}
    for check in v.checks:
        if check.status is Status.SKIPPED and check.metric is not Metric.ERROR_RATIO:
            reasons.setdefault(check.note, []).append(check.site or check.stage)
    left: list[str] = [stage for stage in Stage if stage not in v.stages]
    return reasons | ({"not asked for": left} if left else {})


def _passed(v: Validation) -> str:
    if v.logits(v.exact, Metric.RELATIVE_DIFFERENCE) is None:
        return f"nothing wrong in {', '.join(v.stages)}; whether {v.subject} computes what it should was not asked"
    found = [f"{v.n_parameters:,} parameters"] if v.n_parameters else []
    difference = v.logits(v.dtype, Metric.MAX_ABS_DIFFERENCE)
    if difference is not None:
        found.append(f"logits within {difference:.2g} in {v.dtype}")
    verdicts = [texts.verdict for texts in v.side_by_side]
    if verdicts:
        found.append(f"{verdicts.count(Verdict.SAME)} of {len(verdicts)} texts the same")
    if Verdict.TIE in verdicts:
        found.append(f"{verdicts.count(Verdict.TIE)} parted at a near-tie")
    return f"{v.subject} computes what {_reference(v)} computes: {', '.join(found)}"


def _failed(v: Validation) -> str:
    if v.diagnosis is None:
        return "nothing was compared"
    check = v.diagnosis.check
    found = [v.diagnosis.site]
    if check.mode is not Mode.INPUT and mode_text(check):
        found.append(mode_text(check))
    if check.value is not None and check.tolerance is not None:
        found.append(f"{_number(check.value)} against {_number(check.tolerance)}")
    elif check.value is not None:
        found.append(_number(check.value))
    other = f"another architecture: {', '.join(v.diagnosis.architecture)}; " if v.diagnosis.architecture else ""
    return f"{other}first divergence: {', '.join(found)}"


def _yes(yes: bool) -> tuple[str, str]:
    return ("yes  ", "bold green") if yes else ("no   ", "bold red")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
