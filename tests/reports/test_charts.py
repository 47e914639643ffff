"""The drawings of a report's page. How they look in a browser is tested in test_browser.py."""

from pathlib import Path

from gpt2x.reports.page.charts import score_chart
from gpt2x.reports.page.comparison import compare
from gpt2x.reports.page.measures import MEASURES
from gpt2x.reports.page.study import read_study
from tests.reports import folders


def test_a_legend_names_the_setting_once(tmp_path: Path) -> None:
    """A value that is empty or starts with an underscore has an entry too."""
    settings = [(x, y) for x in (1, 2) for y in ("", "_y", "$y$")]
    for number, (x, y) in enumerate(settings):
        given = {"decode.x": x, "decode.y": y}
        folders.generation(tmp_path / f"{number}", given, [folders.text_row("a b", logprob=-number)], number)
    comparison = compare(read_study(tmp_path).groups["generate"])[0]
    (legend,) = score_chart(comparison, 0, MEASURES["generate"].scores[0]).legends
    assert (comparison.axis.name, legend.get_title().get_text()) == ("x", "y")
    assert [text.get_text().strip() for text in legend.get_texts()] == ["", "_y", "$y$"]
