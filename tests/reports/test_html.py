"""task=report: what the page says, and that nothing in a run can change it. For a browser, see test_browser.py."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from gpt2x.errors import UserError
from gpt2x.parity.rows import ParityRow
from gpt2x.reports.heat_map import draw_heat_map
from gpt2x.reports.page import texts
from gpt2x.reports.page.html import render
from gpt2x.reports.page.reproduce import command_line
from gpt2x.reports.page.study import read_study
from gpt2x.runs.job import Status
from gpt2x.runs.lock import LOCK, locked
from gpt2x.runs.tables import read_rows, write_rows
from gpt2x.training.rows import TrainRow
from tests.conftest import Cli, FullDisk, Refused, assert_in, run_dir
from tests.reports import folders

HOSTILE = "</td></script><script>document.title='owned'</script><img src=x onerror=alert(1)> & \"q\" ' \x1b[31m \u202e"


class Page(HTMLParser):
    """The elements of a page, and what stands in its cells, paragraphs, list items and so on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        """Without those inside of a picture."""
        self.names: set[str] = set()
        """Of all elements and attributes."""
        self.cells: list[str] = []
        self._current = ""
        self._in_svg = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._current = tag
        self.names |= {tag, *(name for name, _ in attrs)}
        if not self._in_svg:
            self.tags.append(tag)
        self._in_svg |= tag == "svg"
        if tag in ("td", "th", "p", "li", "dd", "dt", "pre", "a", "h3", "figcaption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_svg &= tag != "svg"

    def handle_data(self, data: str) -> None:
        if self.cells and self._current not in ("script", "style"):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        """One line per cell, with single spaces."""
        return "\n".join(" ".join(cell.split()) for cell in self.cells)


def page_of(folder: Path) -> Page:
    return Page(render(read_study(folder)))


def rows_of(page: str, number: int) -> list[list[str]]:
    """The cells of the n-th table of numbers below a chart, without tags."""
    table = re.findall(r"<summary>The numbers</summary>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)[number]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)] for row in rows
    ]


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


def test_everything_in_a_run_is_text(tmp_path: Path) -> None:
    """No element, attribute or script of a page comes from a prompt, a text, a setting, an error or a name."""
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    for folder, text in ((plain, "harmless"), (hostile, HOSTILE)):
        for number in range(2):
            settings = {"prompt": f"{text}{number}", "decode.top_p": number, "decode.stop": [text]}
            run = folders.generation(folder / "s" / f"{number}", settings, [folders.text_row(text, text)], number)
            folders.job_folder(
                run.with_name(f"f{number}"), "generate", settings, 2, Status.FAILED, error=text, notes=text
            )
        name = "v" if text == "harmless" else HOSTILE.replace("/", "")
        folders.validation(folder / name, passed=False, cause=text)
        (folder / "w").mkdir()
        (folder / "w" / "job.json").write_text(f'{{"format": 1, "task": "{text[:4]}"}}')
    expected, found = page_of(plain), page_of(hostile)
    assert found.tags == expected.tags
    assert found.names == expected.names
    assert_in(found.text, "</td></script><script>document.title='owned'</script><img src=x onerror=alert(1)> & \"q\" '")
    html = render(read_study(hostile))
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "␛[31m" in html
    assert r"\u202e" in html


def test_only_its_own_script_may_run(sweep: Path) -> None:
    """The policy names the script by its hash, and allows no other, and no request."""
    import base64
    import hashlib

    html = render(read_study(sweep))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.replace("&#39;", "'")
    assert "default-src 'none'" in html


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    folders.job_folder(tmp_path / "a", "generate", {"notes": "x"}, status=Status.FAILED, error="no file \udcff.txt")
    assert r"no file \udcff.txt" in render(read_study(tmp_path)).encode().decode()


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


def test_what_cannot_be_read_is_said(gpt2x: Cli, launch: Path, sweep: Path) -> None:
    shutil.copytree(sweep, launch / "sweep")
    (launch / "sweep" / "0" / "generations.csv").write_text('"prompt_id"\n"a"\n')
    (launch / "sweep" / "1" / "generations.csv").unlink()
    (launch / "sweep" / "2" / "generations.csv").write_bytes(b"\xff\xfe")
    (launch / "sweep" / "3" / "job.json").write_text("{")
    (launch / "sweep" / "4" / "manifest.json").write_text("[]")
    (launch / "sweep" / "sweep.json").write_text("{}")
    result = gpt2x("task=report", "task.runs=sweep", "hydra.run.dir=out")
    assert result.code == 0
    assert len(result.err.splitlines()) == 6
    assert all(line.startswith("not on the page: sweep/") for line in result.err.splitlines()[:5]), result.err
    page = Page((launch / "out" / "report.html").read_text(encoding="utf-8"))
    files = [f"sweep/{i}/generations.csv" for i in range(3)]
    assert_in(
        page.text, *files, "sweep/3/job.json", "sweep/4/manifest.json", "sweep/sweep.json", "6 files could not be read"
    )
    assert_in(page.text, "5 runs in", "is missing, although the run is done")
    assert_in(page.text, "python -m gpt2x task=generate decode.top_p=null seed=1")  # from the job's own job.json


def test_only_unreadable_runs(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{")
    assert_in(page_of(tmp_path).text, "1 file could not be read", "job.json")


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


def test_long_texts_are_cut(tmp_path: Path) -> None:
    folders.generation(tmp_path / "a", {}, [folders.text_row("x" * 5000, "p" * 5000)])
    page = page_of(tmp_path).text
    assert_in(page, "p" * 300 + " … (4,700 more characters)", "x" * 3000 + " … (2,000 more characters)")
    assert "x" * 3001 not in page


def test_a_prompt_stands_in_a_chart_as_text(tmp_path: Path) -> None:
    """Dollar signs would be formulas, and a newline would be a second line."""
    for number, prompt in enumerate(("$x_1$ < y", "two\nlines", "日本 \x07")):
        folders.generation(
            tmp_path / f"{number}", {"prompt": prompt}, [folders.text_row("a b", prompt, logprob=-number)], number
        )
    svg = "".join(re.findall(r"<svg.*?</svg>", render(read_study(tmp_path)), re.DOTALL))
    assert_in(svg, "$x_1$ &lt; y", "two⏎ lines", "日本 ␇")


@pytest.mark.parametrize("values", [(1e-4, 1e-2, 1.0), (True, False), ("a", "b"), (None, 1), ([1], [2])], ids=str)
def test_any_values_of_a_setting(tmp_path: Path, values: tuple[Any, ...]) -> None:
    for number, value in enumerate(values):
        folders.generation(
            tmp_path / f"{number}", {"decode.x": value}, [folders.text_row("a b", logprob=-number)], number
        )
    assert len(rows_of(render(read_study(tmp_path)), 0)) == len(values)


@pytest.mark.parametrize(
    "words", [["it's", 'a="b c"', "x\ny", "$HOME `id` \\", "é \x1b", ""], ["two  spaces", "*", "!x"]]
)
def test_commands_are_quoted_for_bash(words: list[str]) -> None:
    line = command_line(words).replace("python -m gpt2x", "printf '%s\\0'")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == words


def test_labels_of_charts_are_not_taken_for_parts_of_the_picture(tmp_path: Path) -> None:
    for number, prompt in enumerate(('#000000 id="a"', 'href="#b"', "url(#c)")):
        folders.generation(tmp_path / f"{number}", {"prompt": prompt}, [folders.text_row("a", logprob=-number)], number)
    svg = "".join(re.findall(r"<svg.*?</svg>", render(read_study(tmp_path)), re.DOTALL))
    assert_in(unescape(svg), '>#000000 id="a"<', '>href="#b"<', ">url(#c)<")
    ids = re.findall(r' id="([^"]*)"', re.sub(r">[^<]*<", "><", svg))
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', re.sub(r">[^<]*<", "><", svg))) == set(ids)


def test_losses_that_are_not_finite(tmp_path: Path) -> None:
    folders.job_folder(tmp_path / "a", "train", {})
    rows = [TrainRow(step, loss, loss, loss, 0.1, step) for step, loss in enumerate((5.0, float("nan"), float("inf")))]
    write_rows(tmp_path / "a" / "train.csv", TrainRow, rows)
    assert_in(page_of(tmp_path).text, "Loss in nats per token against steps")


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
