"""A few mutants, and a few known mistakes in other styles; tests/mutate_models.py and mistakes_in_styles.py run all."""

import random
from pathlib import Path

from tests import mistakes_in_styles, mutate_models
from tests.mutants import OPERATORS, STYLES, mutants, sample
from tests.subjects.mistakes import MISTAKES
from tests.subjects.slots import SLOTS


def test_mutants_are_caught_and_no_cause_is_wrong(tmp_path: Path) -> None:
    found = mutate_models.judge_all(sample(3)[::17], 10, tmp_path)
    assert not [str(each) for each in found if each.is_wrong]
    assert len(found) == 10
    assert sum(each.outcome == "caught" for each in found) > 5


def test_every_operator_changes_every_style() -> None:
    made = mutants()
    assert {each.operator for each in made} == OPERATORS.keys()
    assert {each.style for each in made} == STYLES.keys()
    assert len({(each.path, each.text, each.style) for each in made}) > 1000


def test_known_mistakes_are_named_in_other_styles(tmp_path: Path) -> None:
    models = random.Random(0).sample(list(mistakes_in_styles.broken_models()), 6)
    assert mistakes_in_styles.check(models, tmp_path) == {"named": len(models)}


def test_mistakes_have_three_styles() -> None:
    assert {len(styles) for styles in SLOTS.values()} == {3}
    assert SLOTS.keys() == MISTAKES.keys()
