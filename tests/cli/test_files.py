"""Settings that name a file: what is said of files that cannot be used, and which kinds of files can."""

import pytest

from tests.cli.conftest import Refused, assert_in


@pytest.mark.parametrize(
    "arguments",
    [
        ("task=generate", 'prompts_file="~no_such_user/x.txt"'),
        ("task=train", 'task.data="~no_such_user/x.txt"'),
        ("task=generate", 'weights.path="~no_such_user/x"'),
        ("task.stages=[logits]", 'task.reference="~no_such_user/x.safetensors"'),
        ("task.stages=[logits]", 'task.save_reference="~no_such_user/x.safetensors"'),
        ("task.stages=[logits]", 'subject.target="~no_such_user/x.py:Model"'),
    ],
    ids=["prompts_file", "data", "weights", "reference", "save_reference", "subject"],
)
def test_an_unknown_home_directory_is_one_line(refused: Refused, arguments: tuple[str, ...]) -> None:
    assert_in(refused(*arguments), "~no_such_user/x")
