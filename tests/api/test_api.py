"""The Python API: what its functions return, and what they refuse, without output and without files."""

import copy
import doctest
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import gpt2x
from gpt2x import api
from tests.conftest import Cli, assert_in, read_csv, run_dir

EXAMPLES = {test.name: test for test in doctest.DocTestFinder().find(api, "gpt2x") if test.examples}
FUNCTIONS = [name for name in gpt2x.__all__ if inspect.isfunction(getattr(gpt2x, name))]


@pytest.fixture(autouse=True)
def _prints_nothing_and_writes_nothing(launch: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    if not (launch / "runs").exists():  # otherwise the test has run the command line too
        assert capfd.readouterr() == ("", "")
        assert list(launch.iterdir()) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_run(name: str) -> None:
    outcome = doctest.DocTestRunner().run(EXAMPLES[f"gpt2x.{name}"])
    assert outcome.attempted > outcome.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_state_what_is_raised(name: str) -> None:
    text = inspect.getdoc(getattr(gpt2x, name)) or ""
    assert_in(text, "Args:", "Returns:", "Raises:", "UserError:", ">>> import gpt2x")
    for parameter in inspect.signature(getattr(gpt2x, name)).parameters:
        assert f"    {parameter}: " in text


def test_the_package_offers_what_it_lists() -> None:
    assert set(gpt2x.__all__) <= set(dir(gpt2x))
    assert FUNCTIONS == ["evaluate", "generate", "load", "read_runs", "validate"]
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        gpt2x.generat  # noqa: B018


def test_generate_returns_what_the_task_writes(gpt2x: Cli, launch: Path, tiny_dir: Path) -> None:
    settings = {"num_samples": 2, "top_k": 5, "temperature": 0.7, "max_new_tokens": 4, "stop": ["x", "\n"]}
    table = api.generate(["to be", "or not"], model=tiny_dir, seed=3, **settings)
    overrides = [f"decode.{key}={value}" for key, value in settings.items() if key != "stop"]
    prompts = ['prompt=["to be", "or not"]', 'decode.stop=["x", "\n"]']
    assert gpt2x("task=generate", *prompts, f"weights.path={tiny_dir}", "seed=3", *overrides).code == 0
    rows = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert list(table.columns) == list(rows[0])
    for column in table.columns:
        if column != "logprob":
            assert [
                "" if value is None else str(value)
                for value in table[column].astype(object).where(table[column].notna(), None)
            ] == [row[column] for row in rows], column
    assert table["logprob"].tolist() == pytest.approx([float(row["logprob"]) for row in rows], rel=1e-6)


def test_generate_has_a_dtype_per_column(tiny_dir: Path) -> None:
    dtypes = api.generate("to be", model=tiny_dir, greedy=True, max_new_tokens=2).dtypes.astype(str)
    assert dtypes[["prompt_id", "sample", "top_k", "greedy", "logprob", "top_p", "stop"]].tolist() == [
        *("string", "int64", "Int64", "bool", "float64", "float64", "string")
    ]


def test_a_loaded_model_is_the_callers(tiny_dir: Path) -> None:
    model, tokenizer = api.load(tiny_dir, device="cpu")
    before = api.generate("to be", model=tiny_dir, greedy=True, max_new_tokens=4)
    assert api.generate("to be", model=(model, tokenizer), greedy=True, max_new_tokens=4).equals(before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    assert api.generate("to be", model=tiny_dir, greedy=True, max_new_tokens=4).equals(before)
    changed = api.generate("to be", model=model, greedy=True, max_new_tokens=4)
    assert changed["logprob"].tolist() != before["logprob"].tolist()


def test_load_takes_names_and_dtypes() -> None:
    model, tokenizer = api.load("gpt2", weights="random", dtype="bfloat16", device="cpu")
    assert (model.config.n_layer, tokenizer.vocab_size, model.lm_head.weight.dtype) == (12, 50257, torch.bfloat16)
    nano, _ = api.load("nano", dtype="int8", device="cpu")
    assert api.generate("x", model=nano, max_new_tokens=2)["n_new_tokens"].tolist() == [2]
    assert api.evaluate("to be or not", model=nano)["dtype"].tolist() == ["int8"]


def test_evaluate_takes_texts_and_a_path(tmp_path: Path, tiny_dir: Path) -> None:
    text = "to be, or not to be\n" * 20
    file = tmp_path / "a.txt"
    file.write_text(text)
    one, several = api.evaluate(text, model=tiny_dir), api.evaluate([text, "to be"], model=tiny_dir, stride=8)
    assert api.evaluate(file, model=tiny_dir).equals(one)
    assert several["text_id"].nunique() == 2
    assert several["stride"].tolist() == [8, 8]
    with pytest.raises(gpt2x.UserError, match=r"for its content, give pathlib\.Path"):
        api.evaluate(str(file), model=tiny_dir)


def _copied() -> None:
    model, _ = api.load("nano", device="cpu")
    api.generate("x", model=copy.deepcopy(model))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: api.load("nanoo"), ["nanoo: no such file", "did you mean 'nano'?"]),
        (lambda: api.load("nano", dtype="float8"), ["dtype=float8", "float64"]),
        (lambda: api.load("nano", device="gpu"), ["device=gpu"]),
        (lambda: api.load("nano", weights="hub"), ["weights.source=hub", "local"]),
        (lambda: api.load("distilgpt2"), ["no weights for distilgpt2"]),
        (lambda: api.generate("x", temprature=1), ["temprature", "did you mean 'temperature'?"]),
        (lambda: api.generate("x", temperature=0), ["decode.temperature=0.0"]),
        (lambda: api.generate("x", top_k="many"), ["decode.top_k", "'many'"]),
        (lambda: api.generate("x", logprobs=3), ["decode.logprobs", "task=generate"]),
        (lambda: api.generate("x", seed="a"), ["seed=a"]),
        (lambda: api.generate("x", batch_size=0), ["batch_size=0"]),
        (lambda: api.generate(""), ["prompts"]),
        (lambda: api.generate([]), ["prompts", "no prompt"]),
        (lambda: api.generate(["a", 7]), ["prompts: entry 2"]),
        (lambda: api.generate("x", model=torch.nn.Linear(1, 1)), ["Linear", "gpt2x.load"]),
        (_copied, ["GPT2", "gpt2x.load"]),
        (lambda: api.evaluate("x", stride=0), ["task.stride=0"]),
        (lambda: api.evaluate("x"), ["has 1 tokens"]),
        (lambda: api.evaluate(Path("none.txt")), ["texts=none.txt", "No such file"]),
        (lambda: api.validate(7), ["int"]),
        (lambda: api.validate("nowhere.py:GPT2"), ["nowhere.py"]),
        (lambda: api.validate(stages=["layer"]), ["task.stages=layer", "did you mean 'layers'?"]),
        (lambda: api.validate(stages=[]), ["task.stages is empty"]),
        (lambda: api.validate(weights="mine"), ["subject.weights=mine"]),
        (lambda: api.validate(rename=[["("]]), ["subject.rename"]),
        (lambda: api.validate(saved_reference="none.safetensors"), ["none.safetensors"]),
        (lambda: api.read_runs(), ["runs: no such folder"]),
        (lambda: api.read_runs(".", "generation"), ["table=generation", "did you mean 'generations'?"]),
        (lambda: api.read_runs("."), ["no run in it"]),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(gpt2x.UserError) as raised:
        call()
    assert_in(str(raised.value), *words)
    assert "\n" not in str(raised.value)
