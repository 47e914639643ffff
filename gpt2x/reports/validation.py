"""What validate says on the console: a table of stages, the two questions, the texts, the verdict."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.diagnosis.diagnose import Diagnosis
from gpt2x.parity.measures import ERROR_RATIO, RELATIVE_TOLERANCE
from gpt2x.parity.reference.record import Record
from gpt2x.parity.rows import ParityRow, SideBySideRow, SummaryRow
from gpt2x.paths import shown
from gpt2x.reports import console


@dataclass(frozen=True)
class Report:
    """All that a validation found."""

    summary: SummaryRow
    rows: list[ParityRow]
    side_by_side: list[SideBySideRow]
    record: Record
    diagnosis: Diagnosis | None
    stages: list[str]
    picture: Path | None
    run_dir: Path

    def show(self) -> None:
        """Prints it."""
        s = self.summary
        out = console.out
        out.print(self._table())
        for text in self.side_by_side:
            out.print(self._texts(text))
        out.print(self._same_function(), soft_wrap=True)
        out.print(self._as_accurate(), soft_wrap=True)
        for reason, what in self._unchecked().items():
            out.print(Text(f"not checked      {', '.join(what)}: {reason}", "yellow"), soft_wrap=True)
        if self.picture is not None:
            link = Text(shown(self.picture), f"link {self.picture.resolve().as_uri()}")
            out.print(Text.assemble("heat map         ", link), soft_wrap=True)
        if s.verdict == "pass":
            out.print(Text.assemble(("PASS", "bold green"), f"  {self._passed()}"), soft_wrap=True)
        else:
            out.print(Text.assemble(("FAIL", "bold red"), f"  {self._failed()}"), soft_wrap=True)
        out.print(f"results in {shown(self.run_dir)}", soft_wrap=True)

    @property
    def _reference(self) -> str:
        return f"transformers {self.record.facts.transformers}"

    def _table(self) -> Table:
        s = self.summary
        heading = f"{s.model} · {s.weights} · {s.dtype} on {s.device} · {s.subject} against {self._reference}"
        table = Table(title=Text(heading), title_justify="left", title_style="bold")
        for column in ("stage", "how", "metric", "checks", "worst", "allowed", "status"):
            table.add_column(column, justify="right" if column in ("checks", "worst", "allowed") else "left")
        groups: dict[tuple[str, str, str], list[ParityRow]] = {}
        for row in self.rows:
            if row.status != "skipped" and (row.status != "ok" or not self._is_detail(row)):
                groups.setdefault((row.stage, row.mode, row.metric), []).append(row)
        last = ""
        for (stage, mode, metric), group in groups.items():
            bad = [row for row in group if row.bad]
            extreme = min if stage == "generation" else max  # of tokens that are the same, the fewest are the worst
            worst = bad[0] if bad else extreme(group, key=lambda row: row.value or 0.0)
            if bad:
                status = Text(f"{len(bad)} {bad[0].status}: {bad[0].site} {bad[0].note}", "red")
            else:
                note = worst.note if len(group) == 1 else worst.site if worst.value and stage != "generation" else ""
                status = Text.assemble(("ok" if worst.tolerance is not None else "", "green"), f"  {note}")
            cells = (str(len(group)), _number(worst.value), _number(worst.tolerance))
            table.add_row("" if stage == last else stage, mode, metric.replace("_", " "), *cells, status)
            last = stage
        return table

    def _is_detail(self, row: ParityRow) -> bool:
        """What only parity.csv says, unless it is wrong."""
        if row.stage == "logits":
            if row.mode.endswith("centred"):
                return True
            exact = row.mode != self.summary.dtype
            return row.metric == "mean_abs_difference" or (exact and row.metric != "relative_difference")
        return row.stage == "config" and row.metric != "parameter_difference"

    def _texts(self, text: SideBySideRow) -> Table:
        pair = Table(title=Text(f"greedy: {text.prompt!r}"), title_justify="left", expand=True)
        pair.add_column(Text(self.summary.subject), ratio=1)
        pair.add_column(self._reference, ratio=1)
        pair.add_row(*(Text(side.replace("\n", "⏎ ")) for side in (text.subject_text, text.reference_text)))
        return pair

    def _same_function(self) -> Text:
        exact = self.record.facts.exact
        value = self._logits(exact, "relative_difference")
        bar = RELATIVE_TOLERANCE[self.record.exact]
        if value is None:
            return Text("same function?   not checked", "yellow")
        said = f"{value:.2g} of the reference's scale in {exact}, allowed {bar:g}"
        if exact != "float64":
            said += "; float64 does not fit in memory, so this is a tolerance for the dtype"
        return Text.assemble("same function?   ", _yes(value <= bar), said)

    def _as_accurate(self) -> Text:
        dtype = self.summary.dtype
        value = self._logits(dtype, "error_ratio")
        if value is None:
            reasons = [row.note for row in self.rows if row.metric == "error_ratio" and row.status == "skipped"]
            return Text(f"as accurate?     not checked: {(reasons or ['no logits compared'])[0]}", "yellow")
        if dtype == "int8":
            s = self.summary
            said = f"mean KL {s.mean_kl:.2g} nats, top-1 agreement {s.top1_agreement:.1%}, {value:.2g} times the error"
            return Text.assemble("as accurate?     ", ("not judged  ", "yellow"), f"{said} of float32: what int8 costs")
        said = f"{value:.3g} times the reference's own error in {dtype}, allowed {ERROR_RATIO:g}"
        return Text.assemble("as accurate?     ", _yes(value <= ERROR_RATIO), said)

    def _logits(self, mode: str, metric: str) -> float | None:
        return next(
            (row.value for row in self.rows if (row.stage, row.mode, row.metric) == ("logits", mode, metric)), None
        )

    def _unchecked(self) -> dict[str, list[str]]:
        """Reason -> stages, or modules, that nothing is known of."""
        reasons: dict[str, list[str]] = {}
        for row in self.rows:
            if row.status == "skipped" and row.metric != "error_ratio":
                reasons.setdefault(row.note, []).append(row.site or row.stage)
        left = [stage for stage in Stage if stage not in self.stages]
        return reasons | ({"not asked for": left} if left else {})

    def _passed(self) -> str:
        s = self.summary
        ties = sum(text.verdict == "tie" for text in self.side_by_side)
        found = [f"{s.parameters_subject:,} parameters"]
        if s.max_abs_logit_difference is not None:
            found.append(f"logits within {s.max_abs_logit_difference:.2g} in {s.dtype}")
        if s.generations_total:
            found.append(f"{s.generations_matched} of {s.generations_total} texts the same")
        if ties:
            found.append(f"{ties} parted at a near-tie")
        if self._logits(self.record.facts.exact, "relative_difference") is None:
            return (
                f"nothing wrong in {', '.join(self.stages)}; whether {s.subject} computes what it should was not asked"
            )
        return f"{s.subject} computes what {self._reference} computes: {', '.join(found)}"

    def _failed(self) -> str:
        d = self.diagnosis
        if d is None:
            return "nothing was compared"
        numbers = [] if d.row.value is None else [_number(d.row.value)]
        if numbers and d.row.tolerance is not None:
            numbers = [f"{numbers[0]} against {_number(d.row.tolerance)}"]
        found = ", ".join([d.site, *([d.row.mode] if d.row.mode not in ("", "input") else []), *numbers])
        return f"first divergence: {found}; probable cause: {d.cause}"


def _yes(yes: bool) -> tuple[str, str]:
    return ("yes  ", "bold green") if yes else ("no   ", "bold red")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
