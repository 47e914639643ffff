"""Correct models never fail: of many shapes, in every dtype, and written in many ways."""

from pathlib import Path

import pytest

from tests.conftest import Result, read_csv, run_dir
from tests.parity.conftest import PLAIN, Checkpoints, Validate

QUICK = "task.stages=[config,weights,layers,logits]"

SHAPES = {
    "1 layer": {"n_layer": 1},
    "2 layers": {"n_layer": 2},
    "5 layers": {"n_layer": 5},
    "12 layers": {"n_layer": 12},
    "1 head": {"n_head": 1},
    "5 heads": {"n_head": 5, "n_embd": 40},
    "heads of width 1": {"n_head": 7, "n_embd": 7},
    "odd vocabulary": {"vocab_size": 307},
    "width of 1 position": {"n_embd": 32, "n_head": 4, "n_positions": 32},
    "vocabulary as wide as c_attn": {"vocab_size": 384, "n_embd": 128, "n_head": 2},
}
# As many tokens as characters: the tokenizer has no merges of these.
ONE_TOKEN, ALL_POSITIONS = 'prompt="!"', f'prompt="{"!?" * 16}"'

RENAMES = (
    "subject.rename=[[tok_emb,wte],[pos_emb,wpe],[trf_blocks,h],[final_norm,ln_f],[out_head,lm_head],"
    r"['norm(\d)','ln_\1'],['att\.W_(.)\w+','attn.c_attn.\1'],['att\.out_proj',attn.c_proj],"
    r"['ff\.layers\.0',mlp.c_fc],['ff\.layers\.2',mlp.c_proj],[scale$,weight],[shift$,bias]]"
)


def assert_passes(result: Result) -> None:
    assert result.code == 0, result.out + result.err
    assert "PASS" in result.out


@pytest.mark.parametrize("subject", ["GPT2", None], ids=["plain", "gpt2x"])
@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_shapes(validate: Validate, checkpoints: Checkpoints, sizes: dict[str, int], subject: str | None) -> None:
    assert_passes(validate(subject, QUICK, weights=checkpoints(**sizes)))


@pytest.mark.parametrize("subject", ["GPT2", None], ids=["plain", "gpt2x"])
@pytest.mark.parametrize("prompt", [ONE_TOKEN, ALL_POSITIONS], ids=["one token", "the whole context"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lengths(validate: Validate, subject: str | None, prompt: str, dtype: str) -> None:
    assert_passes(validate(subject, prompt, f"dtype={dtype}"))


@pytest.mark.parametrize(
    "subject", ["GPT2", "raw_parameters", "monolith", "upcast_softmax", "upcast_norm", "hugging_face", None]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_dtypes(validate: Validate, subject: str | None, dtype: str) -> None:
    assert_passes(validate(subject, f"dtype={dtype}"))


@pytest.mark.parametrize(
    "subject",
    [
        *("tuple_answer", "dict_answer", "object_answer", "LastPosition", "no_argument", "hugging_face"),
        *("ByKeyword", "Compiled", "PositionParameter", "module_constant", "mixed_layouts"),
        "upcast_by_to",
    ],
)
def test_ways_to_write_it(validate: Validate, subject: str) -> None:
    assert_passes(validate(subject))


@pytest.mark.parametrize("subject", ["GPT2", "in_place", "tuple_answer", "LastPosition"])
def test_every_module_is_right_in_isolation(validate: Validate, launch: Path, subject: str) -> None:
    assert_passes(validate(subject, QUICK))
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    assert {row["status"] for row in rows if row["stage"] == "layers"} == {"ok"}


@pytest.mark.parametrize("renames", ["subject=book", RENAMES], ids=["preset", "short"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_book(validate: Validate, renames: str, dtype: str) -> None:
    assert_passes(validate("Book", renames, f"dtype={dtype}"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_own_weights(validate: Validate, dtype: str) -> None:
    assert_passes(validate("own", "subject.weights=own", f"dtype={dtype}"))


@pytest.mark.parametrize("line", ["from .plain import GPT2", "from parts.plain import GPT2"])
def test_file_inside_a_package(validate: Validate, launch: Path, line: str) -> None:
    package(launch / "there", line)
    assert_passes(validate("there/parts/model.py:GPT2", QUICK))


def test_file_beside_its_sibling(validate: Validate, launch: Path) -> None:
    package(launch / "there", "from plain import GPT2")
    (launch / "there" / "parts" / "__init__.py").unlink()
    assert_passes(validate("there/parts/model.py:GPT2", QUICK))


@pytest.mark.parametrize("line", ["from .plain import GPT2", "from parts.plain import GPT2"])
def test_module_below_the_launch_directory(validate: Validate, launch: Path, line: str) -> None:
    package(launch, line)
    assert_passes(validate("parts.model:GPT2", QUICK))


def test_two_subjects_with_siblings_of_one_name(validate: Validate, launch: Path) -> None:
    for folder, name in (("a", "GPT2"), ("b", "act_erf")):
        package(launch / folder, f"from .plain import {name} as model")
    codes = [validate(f"{folder}/parts/model.py:model", QUICK).code for folder in ("a", "b", "a")]
    assert codes == [0, 1, 0]


def package(root: Path, line: str) -> None:
    """root/parts, a package of plain.py and of model.py, which imports from it."""
    (root / "parts").mkdir(parents=True)
    (root / "parts" / "__init__.py").touch()
    (root / "parts" / "plain.py").write_text(PLAIN.read_text())
    (root / "parts" / "model.py").write_text(f"{line}\n")
