"""task=validate: is this GPT-2 the real GPT-2? Ours against transformers, on the same weights."""

from importlib.metadata import version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from gpt2x import console, runtime
from gpt2x.checkpoints import load_checkpoint
from gpt2x.decoding.generate import check_length
from gpt2x.errors import UserError
from gpt2x.parity import stages
from gpt2x.parity.compare import compare_logits
from gpt2x.paths import shown
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.reference import load_reference
from gpt2x.results import ParityRow, SideBySideRow, SummaryRow, write_rows
from gpt2x.runtime import Outcome
from gpt2x.schema import Config


def run(config: Config, run_dir: Path) -> Outcome:
    """Compares counts, tokenizers, weights, logits and greedy text; the verdict is in Outcome.passed."""
    prompt, gen_prompts = _prompts(config)
    device, dtype = runtime.find_device(config.device.name), runtime.find_dtype(config.dtype)
    outcome = Outcome(device=device)
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, dtype, device)
    outcome.checkpoint = checkpoint
    subject, n_positions = checkpoint.model, checkpoint.model.config.n_positions
    ids = checkpoint.tokenizer.encode(prompt)
    check_length(len(ids), 0, n_positions, "prompt")
    for gen_prompt in gen_prompts:
        length = len(checkpoint.tokenizer.encode(gen_prompt.text))
        check_length(length, config.decode.max_new_tokens, n_positions, "gen_prompt")
    with console.err.status("loading transformers") as status:
        with outcome.timed("load_reference"):
            reference = load_reference(checkpoint, dtype, device)
        status.update("comparing")
        with outcome.timed("compare"):
            rows = stages.config_rows(subject, reference)
            rows += stages.tokenizer_rows(checkpoint, prompt)
            rows += stages.weight_rows(subject, reference)
            ours, theirs = stages.logits_of(subject, reference, ids)
            difference = compare_logits(ours, theirs)
            rows += stages.logit_rows(difference, stages.logit_tolerance(theirs, dtype))
        status.update("generating")
        with outcome.timed("generate"):
            side_by_side = [
                stages.compare_generation(checkpoint, reference, gen_prompt.text, config.decode.max_new_tokens)
                for gen_prompt in gen_prompts
            ]
            rows += stages.generation_rows(side_by_side)
    bad = [row for row in rows if row.status != "ok"]
    outcome.passed = not bad
    summary = SummaryRow(
        model=checkpoint.name,
        weights=checkpoint.weights,
        subject="gpt2x",
        device=device.type,
        dtype=config.dtype,
        parameters_subject=stages.count_parameters(subject),
        parameters_reference=stages.count_parameters(reference),
        verdict="pass" if outcome.passed else "fail",
        first_divergence=f"{bad[0].stage}: {bad[0].site}" if bad else "",
        probable_cause="",
        max_abs_logit_difference=difference.max_abs,
        mean_kl=difference.mean_kl,
        top1_agreement=difference.top1_agreement,
        generations_matched=sum(row.verdict == "same" for row in side_by_side),
        generations_total=len(side_by_side),
    )
    write_rows(run_dir / "parity.csv", ParityRow, rows)
    write_rows(run_dir / "side_by_side.csv", SideBySideRow, side_by_side)
    write_rows(run_dir / "summary.csv", SummaryRow, [summary])
    _show(summary, rows, side_by_side, run_dir)
    return outcome


def _prompts(config: Config) -> tuple[str, list[Prompt]]:
    if config.prompts_file is not None:
        raise UserError("prompts_file is for task=generate; validate takes prompt and gen_prompt")
    key = config.decode.sampling_key()
    if key is not None:
        raise UserError(f"decode.{key} is for task=generate; validate compares greedy text")
    prompts = read_prompts(config.prompt, None)
    if len(prompts) != 1:
        raise UserError("prompt: validate compares the logits of one prompt; give more texts as gen_prompt")
    return prompts[0].text, read_prompts(config.gen_prompt, None, key="gen_prompt")


def _show(summary: SummaryRow, rows: list[ParityRow], side_by_side: list[SideBySideRow], run_dir: Path) -> None:
    reference = f"transformers {version('transformers')}"
    heading = f"{summary.model} · {summary.weights} · {summary.dtype} on {summary.device} · gpt2x against {reference}"
    table = Table(title=heading, title_style="bold", title_justify="left")
    for column, justify in (
        ("stage", "left"),
        ("checks", "right"),
        ("metric", "left"),
        ("worst", "right"),
        ("allowed", "right"),
        ("status", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    groups: dict[tuple[str, str], list[ParityRow]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.metric), []).append(row)
    for (stage, metric), group in groups.items():
        bad = [row for row in group if row.status != "ok"]
        shown_row = bad[0] if bad else max(group, key=lambda row: row.value or 0.0)
        if bad:
            status = Text(f"{bad[0].status}: {bad[0].site} {bad[0].note}", "red")
        else:
            status = Text.assemble(("ok", "green"), f"  {group[0].note}" if len(group) == 1 else "")
        table.add_row(stage, str(len(group)), metric, _number(shown_row.value), _number(shown_row.tolerance), status)
    console.out.print(table)
    for text in side_by_side:
        pair = Table(title=Text(f"greedy: {text.prompt!r}"), title_justify="left", expand=True)
        pair.add_column("gpt2x", ratio=1)
        pair.add_column(reference, ratio=1)
        pair.add_row(*(Text(side.replace("\n", "⏎ ")) for side in (text.subject_text, text.reference_text)))
        console.out.print(pair)
    ties = sum(text.verdict == "tie" for text in side_by_side)
    if summary.verdict == "pass":
        verdict = Text.assemble(
            ("PASS", "bold green"),
            f"  gpt2x computes what {reference} computes: {summary.parameters_subject:,} parameters, ",
            f"logits within {summary.max_abs_logit_difference:.2g}, ",
            f"{summary.generations_matched} of {summary.generations_total} texts the same",
            f", {ties} parted at a near-tie" if ties else "",
        )
    else:
        verdict = Text.assemble(("FAIL", "bold red"), f"  first divergence: {summary.first_divergence}")
    console.out.print(verdict, soft_wrap=True)
    console.out.print(f"results in {shown(run_dir)}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
