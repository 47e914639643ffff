"""task=report: what the page says. For a browser, see test_browser.py; for hostile runs, test_foreign_text.py."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import stdev

import pytest

from gpt2x.errors import UserError
from gpt2x.parity.rows import ParityRow
from gpt2x.reports.heat_map import draw_heat_map
from gpt2x.reports.page import texts
from gpt2x.reports.page.html import render
from gpt2x.reports.page.study import read_study
from gpt2x.runs.job import Status
from gpt2x.runs.lock import LOCK, locked
from gpt2x.runs.tables import read_rows
from tests.conftest import Cli, FullDisk, Refused, assert_in, run_dir
from tests.reports import folders
from tests.reports.page import Page, page_of, rows_of


def test_from_the_command_line_to_the_page_and_back(gpt2x: Cli, launch: Path) -> None:
    """The command that the page names makes the same table."""
    prompt = 'It\'s <b>"bold"</b>, ${x}'
    given = ("-m", "task=generate", f'prompt="{prompt.replace(chr(34), chr(92) + chr(34))}"', "decode.max_new_tokens=4")
    assert gpt2x(*given, "decode.top_p=0.5,0.9", "seed=0,1", "hydra.sweep.dir=runs/sweeps/one").code == 0
    result = gpt2x("task=report", "task.runs=runs")
    folder = run_dir(launch, "report")
    assert (result.code, result.err) == (0, "")
    where = folder.relative_to(launch)
    assert result.out.splitlines() == ["4 runs: 4 done", f"page  {where}/report.html", f"results in {where}"]
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert_in(page.text, "4 runs in runs", prompt, "Against decode.top_p", "4 done", "model.safetensors")
    (command,) = [cell for cell in page.cells if cell.startswith("python -m gpt2x -m ")]
    arguments = shlex.split(command)[3:]
    assert gpt2x(*arguments, "hydra.sweep.dir=again").code == 0
    first, second = (launch / name / "generations.csv" for name in ("runs/sweeps/one", "again"))
    assert first.read_bytes() == second.read_bytes()

    again = gpt2x("task=report", "task.runs=runs", "hydra.run.dir=again2")  # the page of before is no run to report on
    assert again.out.splitlines()[0] == "4 runs: 4 done"
    assert (launch / "again2" / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_a_report_needs_a_folder_with_runs(refused: Refused, gpt2x: Cli, launch: Path) -> None:
    assert_in(refused("task=report"), "sweep=NAME", "task.runs=FOLDER")
    assert_in(refused("task=report", "task.runs=nowhere"), "task.runs=nowhere", "there is no folder")
    assert_in(refused("task=report", "task.runs=.", "dtype=float64"), "dtype", "task=report does not use it")
    assert_in(refused("task=report", "task.runs=."), "no run in it", "job.json")


def test_a_full_disk_leaves_no_page(gpt2x: Cli, launch: Path, full_disk: FullDisk) -> None:
    folders.generation(launch / "runs" / "a", {}, [folders.text_row("x")])
    full_disk(launch / "out" / "report.html")
    assert_in(gpt2x("task=report", "task.runs=runs", "hydra.run.dir=out").error(), "report.html", "No space left")
    assert not (launch / "out").exists()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two values of top_p and three seeds, in a sweep; the last job has failed."""
    folder, number = tmp_path / "sweep", 0
    folders.sweep_json(folder, "task=generate", "decode.top_p=0.5,null", "seed=0,1,2")
    for top_p in (0.5, None):
        for seed in (0, 1, 2):
            settings = {"decode.top_p": top_p, "seed": seed}
            if (top_p, seed) == (None, 2):
                folders.job_folder(folder / "f", "generate", settings, number, Status.FAILED, error="it <failed>")
            else:
                row = folders.text_row(
                    "a b a b a b a", seed=seed, logprob=-10.0 * (seed + 1) - (top_p or 0), n_new_tokens=5
                )
                folders.generation(folder / f"{number}", settings, [row], number)
            number += 1
    return folder


def test_scores_are_means_over_seeds_with_their_spread(sweep: Path) -> None:
    page = render(read_study(sweep))
    first, second = rows_of(page, 0)
    means = [(-10.0 * (seed + 1) - 0.5) / 5 for seed in (0, 1, 2)]
    assert first[:3] == ["0.5", "3", f"{sum(means) / 3:.4g} ± {stdev(means):.2g}"]
    assert second[:2] == ["null", "2"]
    assert first[3].startswith("0.3333 ")  # 2 of 6 pairs are different ones
    assert first[4].startswith("0.5 ")  # of 4 runs of four words, 2 are repeated
    assert first[5].startswith("5 ")
    assert "Not all combinations" in page  # the failed job's is missing
    assert re.findall(r'<svg[^>]*aria-label="([^"]*)"', page) == ["log-probability per token against top_p"]
    assert_in(Page(page).text, "new tokens, per text: 5 everywhere.")  # so there is nothing to draw


def test_failures_and_counts(sweep: Path) -> None:
    page = page_of(sweep)
    assert_in(page.text, "6 runs in", "5 done", "1 failed", "it <failed>", "top_p=null, seed=2")
    assert_in(page.text, "python -m gpt2x -m task=generate decode.top_p=0.5,null seed=0,1,2")


def test_samples_stand_in_for_seeds(tmp_path: Path) -> None:
    for place, top_p in enumerate((0.5, 0.9)):
        rows = [folders.text_row("x", sample=sample, logprob=-10.0 * sample) for sample in (0, 1)]
        folders.generation(tmp_path / f"{place}", {"decode.top_p": top_p}, rows)
    first, _ = rows_of(render(read_study(tmp_path)), 0)
    assert first[:4] == ["0.5", "2", "-0.5 ± 0.71", ""]
    assert_in(page_of(tmp_path).text, "distinct pairs of words, share of the pairs in a text: nothing to measure.")


def test_each_sweep_is_compared_on_its_own(tmp_path: Path) -> None:
    for name, key in (("a", "decode.top_p"), ("b", "decode.top_k")):
        folders.sweep_json(tmp_path / name)
        for number, value in enumerate((1, 2)):
            folders.generation(tmp_path / name / f"{number}", {key: value}, [folders.text_row("x y")], number)
    page = page_of(tmp_path)
    assert_in(page.text, f"Against decode.top_p {tmp_path / 'a'}", f"Against decode.top_k {tmp_path / 'b'}")
    assert "Against decode.top_k " + str(tmp_path / "a") not in page.text


def test_validations(tmp_path: Path) -> None:
    folders.validation(tmp_path / "good", passed=True)
    folders.validation(tmp_path / "wrong", passed=False)
    html = render(read_study(tmp_path))
    page = Page(html)
    assert_in(page.text, "FAIL: 1 of 2 validations", "h.1.mlp", "exact (erf) GELU instead of tanh")
    assert page.text.index("FAIL wrong.py:f") < page.text.index("PASS good.py:f")
    wrong, good = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert "3e-04" in wrong  # the only value above the tolerance
    assert "e-04" not in good
    shutil.rmtree(tmp_path / "wrong")
    assert_in(page_of(tmp_path).text, "PASS: 1 validation\n")


def test_the_heat_map_is_that_of_the_run(gpt2x: Cli, launch: Path, tmp_path: Path) -> None:
    assert gpt2x("task.stages=[layers]", "hydra.run.dir=out").code == 0
    rows = read_rows(launch / "out" / "parity.csv", ParityRow)
    draw_heat_map("gpt2x", rows, "float64").savefig(tmp_path / "again.png", format="png")
    assert (tmp_path / "again.png").read_bytes() == (launch / "out" / "parity.png").read_bytes()


def test_the_other_tasks(tmp_path: Path) -> None:
    for number, stride in enumerate((64, 128)):
        folders.evaluation(tmp_path / "e" / f"{number}", stride, bits=2.0 + number, number=number)
        folders.training(tmp_path / "t" / f"{number}", lr=0.01 * (number + 1), number=number)
    folders.benchmark(tmp_path / "b")
    html = render(read_study(tmp_path))
    assert rows_of(html, 0) == [["64", "2"], ["128", "3"]]  # no spread, so no column with the number of draws
    assert rows_of(html, 1) == [["0.01", "3.7"], ["0.02", "3.4"]]  # the best evaluation
    charts = re.findall(r'<svg[^>]*aria-label="([^"]*)"', html)
    names = ["bits per byte against stride", "Loss against steps", "bits per byte against lr", "Time of a step"]
    assert charts == names
    assert_in(html, "transformers float32", "batch 8")


def test_killed_and_running(tmp_path: Path) -> None:
    folders.job_folder(tmp_path / "killed", "generate", {}, status=Status.RUNNING, pid=2**22 + 1)
    folders.job_folder(tmp_path / "running", "generate", {}, status=Status.RUNNING)
    with locked(tmp_path / "running" / LOCK, "hydra.run.dir"):
        page = page_of(tmp_path)
    assert_in(page.text, "1 killed", "1 running")
    assert_in(page.text, "killed\ntask=generate")
    assert "running\ntask=generate" not in page.text  # it has not failed


def test_many_texts_are_taken_from_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        rows = [folders.text_row(f"text {number}-{sample}", sample=sample) for sample in range(4)]
        folders.generation(tmp_path / f"{number}", {"seed": number}, rows, number)
    monkeypatch.setattr(texts, "MOST_TEXTS", 6)
    page = page_of(tmp_path)
    assert "6 of 12 texts: the first ones of every run." in page.text
    assert re.findall(r"text (\d-\d)", page.text) == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    monkeypatch.setattr(texts, "_MOST_CHARACTERS", 30)
    assert "2 of 12 texts" in page_of(tmp_path).text


def test_presets_of_ones_own_are_named(tmp_path: Path) -> None:
    for number, name in enumerate(("dtypes", "mine")):
        folders.generation(tmp_path / f"{number}", {}, [folders.text_row("a")])
        job = tmp_path / f"{number}" / "job.json"
        job.write_text(job.read_text().replace('"task=generate"', f'"task=generate", "experiment={name}"'))
    assert_in(page_of(tmp_path).text, "also needs its file, in ./conf or with --config-dir: experiment=mine.")


def test_it_needs_no_torch() -> None:
    code = "import sys, gpt2x.tasks.report; print(sorted({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in it"):
        read_study(tmp_path)
