"""The jobs of a sweep, composed by copying what they have in common, are what Hydra composes one by one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core import utils
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from gpt2x.cli import resume
from gpt2x.cli.composer import Composer
from gpt2x.cli.composition import VERSION_BASE
from gpt2x.cli.copies import hydra_copies_less
from tests.conftest import Cli

JOBS = [
    ["seed=3"],
    ["seed=3", "task=generate"],
    ["task=generate", "decode.top_p=0.5", "seed=7", "dtype=bfloat16"],
    ["task=generate", "decode=greedy", "decode.greedy=false", "decode.stop=[a,'b c']", "model=nano"],
    ["decode.top_k=9", "task=generate", "decode=greedy"],  # the group comes last, and is composed first
    ["task=train", "task.data=x.txt", "weights=random", "weights.seed=4"],
    ["task=generate", "prompt=a", "prompt=b", "batch_size=2", "batch_size=auto"],
    ["task=generate", 'prompt="say ${x}, \\\\${y} = z"', "prompt_id='a=b'"],
    ["task=generate", "prompt=[a,b]", "shard.index=1", "shard.count=3"],
    ["task=generate", "seed=${decode.top_k}", "decode.top_k=5"],
    ["task=generate", "prompt_id=${hydra:job.num}", "seed=1"],
    ["task=generate", "prompt_id=${now:%f}"],
    ["+prompt_id=x", "seed=2"],
    ["++decode.new=1", "seed=2"],
    ["task=generate", "decode={top_k: 4}", "seed=2"],
    ["sweep=s", "retries=2", "fail_fast=true"],
    ["tracking=mlflow", "tracking.uri=there"],
    ["+mine=two", "seed=5"],
    ["task=generate", "decode.top_p=0.5", "prompt_id=''", "prompts_file=null"],
    ["weights.path=null", "~seed"],
    ["task=generate", "decode=[greedy,sample]"],
]
WRONG = [
    ["experiment=null", "seed=2"],
    ["mine=two", "seed=5"],
    ["task=generate", "notes=five", "seed=1"],  # a group that has the name of a setting
    ["task=generate", "decode.top_p=", "prompt_id=''"],
    ["seed=x"],
    ["task=generate", "decode.top_k=0.5"],
    ["task=validate", "task.max=1"],
    ["task=nothing", "seed=1"],
    ["decode.nothing=1"],
    ["seed=1,2"],
    ["seed=${"],
    ["decode.greedy=maybe"],
    ["shard=3"],
    ["+seed=1"],
    ["dtype@x=1"],
]
# Values for Hydra's sweeper in a job, which only Hydra 1.3 allows.
if VERSION_BASE:
    JOBS.append(["experiment=nucleus", "seed=2"])
else:
    WRONG.append(["experiment=nucleus", "seed=2"])


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    """The composer of a sweep that a command starts, which runs no job. The user has groups of their own."""
    from gpt2x.cli.main import main

    folder = tmp_path_factory.mktemp("conf")
    for file in ("mine/two.yaml", "notes/five.yaml"):
        (folder / file).parent.mkdir()
        (folder / file).write_text("# @package _global_\nprompt_id: mine\n")
    found: list[Composer] = []

    def launch(self: Any, job_overrides: Any, initial_job_idx: int) -> list[Any]:
        found.append(self.composer)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(resume.Resuming, "launch", launch)
        patch.setattr("sys.argv", ["gpt2x", f"--config-dir={folder}", "-m", "seed=1,2", "hydra.job.env_copy=[PATH]"])
        main()
    OmegaConf.set_cache(found[0].sweep, {"now": {"%f": "123"}})
    return found[0]


def parts(node: Any) -> Any:
    """All that OmegaConf knows of a node and of those in it."""
    state = {key: value for key, value in vars(node).items() if key not in ("_content", "_parent", "_flags_cache")}
    content = node._content if isinstance(node, (DictConfig, ListConfig)) else None
    if isinstance(content, dict):
        return type(node), state, [(key, parts(each)) for key, each in content.items()]
    if isinstance(content, list):
        return type(node), state, [parts(each) for each in content]
    return type(node), state, content


def outcome(loader: ConfigLoader | Composer, sweep: DictConfig, overrides: list[str]) -> Any:
    """What is composed, or the error and its causes."""
    try:
        return parts(loader.load_sweep_config(sweep, list(overrides)))
    except Exception as error:
        chain, each = [], error
        while each is not None:
            chain.append((type(each), str(each)))
            each = each.__cause__  # type: ignore[assignment]
        return chain


@pytest.mark.parametrize("overrides", JOBS + WRONG, ids=" ".join)
def test_what_hydra_composes(composer: Composer, overrides: list[str]) -> None:
    expected = outcome(composer.loader, composer.sweep, overrides)
    assert isinstance(expected, list) is (overrides in WRONG)
    assert outcome(composer, composer.sweep, overrides) == expected
    assert outcome(composer, composer.sweep, overrides) == expected  # what is copied has not changed


def test_hydra_composes_once_for_jobs_that_differ_in_values(
    gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    load = ConfigLoaderImpl.load_sweep_config

    def counted(self: Any, sweep: DictConfig, overrides: list[str]) -> Any:
        calls.append(overrides)
        return load(self, sweep, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    sweep = ("-m", "task=generate", "decode=sample", "decode.max_new_tokens=1", "decode.top_k=7", "hydra.sweep.dir=out")
    assert gpt2x(*sweep, "decode.stop=[x],[y]", "seed=${decode.top_k},4").code == 0
    assert calls == [["task=generate", "decode=sample"]]
    jobs = [json.loads(file.read_text()) for file in launch.glob("out/*/job.json")]
    values = sorted((job["number"], *map(job["chosen"].get, ("decode.stop", "seed"))) for job in jobs)
    assert values == [(0, ["x"], 7), (1, ["x"], 4), (2, ["y"], 7), (3, ["y"], 4)]


def test_hydra_runs_the_same_job_with_fewer_copies(
    composer: Composer, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def task(cfg: DictConfig) -> None:
        hydra = HydraConfig.get()
        plain = OmegaConf.to_container(hydra, resolve=False)
        seen.append((parts(cfg), plain, OmegaConf.is_readonly(hydra), cfg.prompt_id, cfg.prompt_file, os.environ["A"]))

    def run() -> tuple[Any, ...]:
        overrides = ["task=generate", "prompt_id=${hydra:job.num}", "prompt_file=${hydra:runtime.output_dir}", "seed=3"]
        cfg = composer.load_sweep_config(composer.sweep, overrides)
        with open_dict(cfg):
            cfg.hydra.job.num, cfg.hydra.job.env_set, cfg.hydra.sweep.dir = 4, {"A": "b"}, str(launch)
            cfg.hydra.sweep.subdir = "job-${hydra.job.num}"
        context = HydraContext(composer.loader, Callbacks())
        done = utils.run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", context)
        return parts(done.cfg), done.overrides, done.status, done.return_value, HydraConfig.instance().cfg

    expected = run()
    with hydra_copies_less():
        assert run() == expected
    assert seen[0] == seen[1]
    assert seen[0][3:] == (4, str(launch / "job-4"), "b")
    assert run() == expected
