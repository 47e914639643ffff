"""task=report: nothing in a run can change its page, whatever its texts, settings and files are."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gpt2x.reports.page.html import render
from gpt2x.reports.page.reproduce import command_line
from gpt2x.reports.page.study import read_study
from gpt2x.runs.job import Status
from gpt2x.runs.tables import write_rows
from gpt2x.training.rows import TrainRow
from tests.conftest import Cli, assert_in
from tests.reports import folders
from tests.reports.page import Page, page_of, rows_of
from tests.reports.test_html import sweep

__all__ = ["sweep"]

HOSTILE = "</td></script><script>document.title='owned'</script><img src=x onerror=alert(1)> & \"q\" ' \x1b[31m \u202e"


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
