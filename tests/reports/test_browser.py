"""The page of task=report in a real browser: layout, filter, and that it loads nothing and runs no foreign script.

Chromium is Debian's package `chromium`. The pictures of the page are in pytest's temporary folder (page-390.png, ...).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpt2x.reports.page.html import render
from gpt2x.reports.page.study import read_study
from gpt2x.runs.job import Status, read_job
from tests.reports import folders
from tests.reports.test_foreign_text import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
NARROW, WIDE = 390, 1440  # pixels: a telephone and a laptop

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="needs Chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all sections and 120 texts, one of which is hostile."""
    root = tmp_path_factory.mktemp("report")
    runs, number = root / "runs", 0
    folders.sweep_json(runs / "sweep", "task=generate", "decode.top_p=0.3,0.6,0.9,1.0", "seed=0,1,2")
    for top_p in (0.3, 0.6, 0.9, 1.0):
        for seed in range(3):
            rows = [
                folders.text_row(
                    f"text {number}-{sample} the king" + " a" * number,
                    sample=sample,
                    logprob=-20 * top_p - seed,
                    seed=seed,
                )
                for sample in range(10)
            ]
            rows[0] = folders.text_row(HOSTILE, HOSTILE) if number == 0 else rows[0]
            settings = {"decode.top_p": top_p, "decode.stop": [HOSTILE if seed else "x"], "seed": seed}
            folders.generation(runs / "sweep" / f"{number}", settings, rows, number)
            number += 1
    folders.job_folder(runs / "sweep" / "f", "generate", {}, 99, Status.FAILED, error="no-space-in-this-error" * 20)
    folders.validation(runs / "good", passed=True)
    folders.validation(runs / ("wrong_without_a_place_to_break_the_line" * 3), passed=False)
    for place in range(2):
        folders.evaluation(runs / "e" / f"{place}", 64 + place, 2.0 + place, place)
        folders.training(runs / "t" / f"{place}", 0.01 + place, place)
    folders.benchmark(runs / "b")
    (runs / "damaged").mkdir()
    (runs / "damaged" / "job.json").write_text("{")
    file = root / "report.html"
    file.write_text(render(read_study(runs)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "CI must have Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Opened:
    """A page with what it asked for and complained of."""

    def __init__(self, page: "Page", file: Path) -> None:
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(file.as_uri())


@pytest.fixture
def wide(browser: "Browser", html: Path) -> Iterator["Page"]:
    page = browser.new_page(viewport={"width": WIDE, "height": 900})
    yield Opened(page, html).page
    page.close()


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout(browser: "Browser", html: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = Opened(page, html)
    page.screenshot(path=html.with_name(f"page-{width}-{scheme}.png"), full_page=True)
    assert opened.requests == [html.as_uri()]
    assert opened.complaints == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true })")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    boxes = page.locator("svg").evaluate_all("all => all.map((each) => each.getBoundingClientRect().toJSON())")
    assert len(boxes) == 6 + 2 + 2 + 1 + 1  # scores; heat maps; bits per byte; curves; bars
    assert all(box["width"] > 200 and box["height"] > 100 for box in boxes)
    sizes = page.locator("svg text").evaluate_all("all => all.map((each) => each.getBoundingClientRect().height)")
    assert min(sizes) > 6  # pixels: an automatic check for what nobody could read
    outside = page.locator("svg").evaluate_all("""all => all.flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].map((each) => [each.textContent, each.getBoundingClientRect()])
            .filter(([_, box]) => box.left < frame.left - 2 || box.right > frame.right + 2).map(([text]) => text);
    })""")
    assert outside == []
    page.close()


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_labels_of_charts(browser: "Browser", tmp_path: Path, width: int) -> None:
    """No label is cut off by the edge of its chart or stands on another one, and the axes keep their height."""
    prompts = [f"{word} is a prompt, and a long one" for word in ("_This", "That", "What", "Which", "Who", "Whose")]
    sweeps: dict[str, list[dict[str, Any]]] = {
        "names": [
            {"decode": decode, "decode.repetition_penalty": penalty, "decode.x": x}
            for decode in ("greedy", "sample")
            for penalty in (1.0, 1.1, 1.3)
            for x in ("", "y")
        ],
        "close": [{"decode.top_p": top_p} for top_p in (0.59655836, 0.684169453, 0.697631193, 0.91)],
        "close_decades": [{"decode.x": x} for x in (1e-5, 1.2e-5, 1e-2)],
        "prompts": [{"prompt": prompt, "decode.top_p": top_p} for prompt in prompts for top_p in (0.5, 0.9)],
        "short": [{"decode.x": value} for value in ("null", *map(str, range(1000, 1011)))],
    }
    for name, settings in sweeps.items():
        for i, each in enumerate(settings):
            rows = [folders.text_row("a b" * i, sample=sample, logprob=-i - sample) for sample in range(2)]
            folders.generation(tmp_path / name / f"{i}", each, rows, i)
    for i in range(8):
        folder = tmp_path / "curves" / f"{i}"
        folders.training(folder, 0.0123456 + i, i)
        job = read_job(folder)
        assert job is not None
        job.chosen = job.chosen | {"task.a": prompts[i % 2], "task.b": prompts[i % 3], "task.c": prompts[i % 5]}
        job.write(folder)
    file = tmp_path / "report.html"
    file.write_text(render(read_study(tmp_path)), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(file.as_uri())
    page.screenshot(path=tmp_path / f"labels-{width}.png", full_page=True)
    faults = page.locator("svg").evaluate_all("""all => all.flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll("text")].filter((each) => each.textContent.trim()).map((each) => {
            const { a, b } = each.getScreenCTM();
            return { text: each.textContent, box: each.getBoundingClientRect(), tilted: Math.abs(a * b) > 0.01 };
        });
        const cut = texts.filter(({ box }) => box.left < frame.left - 1 || box.right > frame.right + 1 ||
            box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(({ text }) => "cut: " + text);
        const on = texts.flatMap((one, i) => texts.slice(i + 1).filter(({ box, tilted }) =>
            !(one.tilted && tilted) && one.box.left < box.right - 1 && box.left < one.box.right - 1 &&
            one.box.top < box.bottom - 1 && box.top < one.box.bottom - 1).map(({ text }) => `${one.text} on ${text}`));
        const heights = [...svg.querySelectorAll("clipPath rect")].map((each) => Number(each.getAttribute("height")));
        const low = heights.filter((each) => each < 148).map((each) => `low: ${each}`);
        return [...cut, ...on, ...low].map((fault) => `${svg.ariaLabel}: ${fault}`);
    })""")
    assert faults == []
    page.close()


def test_text_is_legible_in_both_schemes(browser: "Browser", html: Path) -> None:
    """The contrast of texts, those of charts included, is that of WCAG 2.2 for normal text: 4.5, of large text: 3."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(html.as_uri())
        contrasts = page.evaluate("""() => {
            const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const light = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map((value) => linear(value / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const back = light(getComputedStyle(document.body).backgroundColor);
            const ratio = (colour) => {
                const [more, less] = [light(colour), back].sort((x, y) => y - x);
                return (more + 0.05) / (less + 0.05);
            };
            const of = (query, name) =>
                [...document.querySelectorAll(query)].map((each) => ratio(getComputedStyle(each)[name]));
            return {
                text: Math.min(...of("p, td, th, a, code, figcaption, .state, .prompt", "color")),
                chart: Math.min(...of("#generations svg text, #training svg text, #benchmarks svg text", "fill")),
            };
        }""")
        assert contrasts["text"] >= 4.5, (scheme, contrasts)
        assert contrasts["chart"] >= 4.5, (scheme, contrasts)
        page.close()


def test_nothing_hostile_runs(browser: "Browser", html: Path) -> None:
    page = browser.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened = Opened(page, html)
    page.locator("#texts select").first.select_option(index=1)  # choices are made from the cells
    assert page.locator("img").count() == 0
    assert (page.title(), dialogs, opened.complaints) == ("runs: report of 20 runs", [], [])
    assert "<script>document.title='owned'</script>" in page.locator("#texts td.text").first.inner_text()
    page.close()


def test_the_policy_stops_what_is_not_its_own(browser: "Browser", html: Path, tmp_path: Path) -> None:
    """Even if text were not escaped, its script would not run and its picture would not be asked for."""
    broken = tmp_path / "broken.html"
    page = html.read_text(encoding="utf-8").replace(
        "</main>", "<script>document.title='owned'</script><img src=x></main>"
    )
    broken.write_text(page, encoding="utf-8")
    opened = Opened(browser.new_page(), broken)
    assert opened.page.title() == "runs: report of 20 runs"
    assert len(opened.complaints) == 2
    opened.page.close()


def shown(page: "Page") -> int:
    return page.locator("#texts tbody tr:visible").count()


def test_filter_by_text(wide: "Page") -> None:
    status = wide.locator("#texts [role=status]")
    assert (shown(wide), status.inner_text()) == (50, "1 to 50 of 120")
    search = wide.get_by_label("text", exact=True).first
    search.fill("TEXT 3-7")
    assert (shown(wide), status.inner_text()) == (1, "1 to 1 of 1, of 120")
    assert "text 3-7" in wide.locator("#texts tbody tr:visible").inner_text()
    search.fill("nothing has this")
    assert (shown(wide), status.inner_text()) == (0, "no row, of 120")
    search.fill("")
    assert (shown(wide), status.inner_text()) == (50, "1 to 50 of 120")


def test_filter_by_settings(wide: "Page") -> None:
    controls = wide.locator("#texts .controls")
    controls.get_by_label("top_p").select_option("0.9")
    assert shown(wide) == 30
    controls.get_by_label("seed").select_option("2")
    assert shown(wide) == 10
    assert {cell.inner_text() for cell in wide.locator("#texts td[data-name=top_p]:visible").all()} == {"0.9"}
    controls.get_by_label("top_p").select_option("all")
    assert shown(wide) == 40
    assert controls.get_by_label("end").count() == 0  # all texts end the same way: there is nothing to choose


def test_pages(wide: "Page") -> None:
    status = wide.locator("#texts [role=status]")
    back, following = (wide.locator("#texts").get_by_label(name) for name in ("previous rows", "next rows"))
    assert back.is_disabled()
    following.click()
    following.click()
    assert (status.inner_text(), shown(wide), following.is_disabled()) == ("101 to 120 of 120", 20, True)
    back.click()
    assert status.inner_text() == "51 to 100 of 120"
    wide.get_by_label("text", exact=True).first.fill("text 1")  # a filter begins at the first page
    assert status.inner_text().startswith("1 to ")


def test_without_javascript_and_on_paper(browser: "Browser", html: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(html.as_uri())
    assert (page.locator("#texts tbody tr").count(), page.locator(".controls").count()) == (120, 0)
    assert all(row.is_visible() for row in page.locator("#texts tbody tr").all()[::20])
    context.close()
    page = browser.new_page(color_scheme="dark")
    page.goto(html.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".controls").first.is_visible()
    assert shown(page) == 120  # the rows of all pages
    note = page.locator("#texts p.on-paper")
    assert note.inner_text() == ""
    page.set_viewport_size({"width": NARROW, "height": 900})  # here a row is a card
    assert shown(page) == 120
    page.locator("#texts .controls select").first.select_option("0.9", force=True)
    assert (shown(page), note.inner_text()) == (30, "30 of 120 rows: those that the filter of the page leaves.")
    clips = page.locator(".scroll").evaluate_all("all => all.map((each) => getComputedStyle(each).overflowX)")
    assert set(clips) == {"visible"}  # the browser makes a page smaller whose table is too wide, and cuts off nothing
    assert page.pdf().startswith(b"%PDF")
    page.close()
