"""The command line: compose the configuration, run the task, say in the exit code how it went."""

import atexit
import errno
import gc
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt2x import __version__
from gpt2x.config.schema import Config
from gpt2x.config.tasks import SCHEMAS
from gpt2x.errors import DoesNotFitError, UserError, nearest
from gpt2x.paths import bundled, shown, silence_stdout, write_text
from gpt2x.runs import manifest as runtime

DONE, NO_PARITY, USER_ERROR, JOBS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
# What the file system says of a folder that cannot be made or written.
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def main() -> int:
    """Runs `gpt2x` with sys.argv; returns the exit code."""
    gc.disable()  # what is imported first is no garbage, and looking for it takes a tenth of that time
    atexit.register(gc.freeze)  # else the exit looks for garbage in all of torch: a quarter of a second
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises instead of printing and exiting
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 is no reason to lose a run
    session = _Session()
    code = _guarded(lambda: _run_hydra_on(sys.argv[1:], session), session)
    if session.sweep_dir is not None:
        from gpt2x.runs.tables import collect_sweep
        from gpt2x.tasks.registry import TABLES

        sweep_dir = session.sweep_dir
        code = max(code, _guarded(lambda: collect_sweep(sweep_dir, session.jobs, TABLES), session))
    elif code == USER_ERROR:
        # Hydra makes it before it looks at the settings.
        _discard(Path.cwd() / "runs" / "sweeps" / session.stamp, keep=set())
    return code or session.exit_code


def _guarded(work: Callable[[], None], session: "_Session") -> int:
    """Does the work; what the user must change becomes one line and its exit code, a bug stays an exception."""
    try:
        work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
    except Exception as error:
        message = _message(error, session.started)
        if message is None:
            raise
        return _complain(message)
    return DONE


class _Session:
    """What the jobs of one command leave for its exit code."""

    def __init__(self) -> None:
        self.exit_code = DONE
        self.started = False
        self.sweep_dir: Path | None = None
        self.jobs: list[tuple[Path, dict[str, Any]]] = []  # of a sweep: folder, and what its manifest says
        # To the microsecond: runs started in the same second would share a folder.
        self.stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")

    def job(self, cfg: DictConfig) -> None:
        """One job, as Hydra calls it: alone, or one of a sweep, where a failure must not stop the others."""
        self.started = True
        settings = HydraConfig.get()
        run_dir = Path(settings.runtime.output_dir)
        before = set(run_dir.iterdir())
        facts: dict[str, Any] = {"overrides": OmegaConf.to_container(settings.overrides.task)}
        start = time.perf_counter()
        if settings.mode == RunMode.MULTIRUN:
            self.sweep_dir = run_dir.parent
            self.jobs.append((run_dir, facts))
        try:
            facts["settings"] = _chosen(cfg, facts["overrides"])
            passed = _run_task(cfg, run_dir, facts, start)
        except BaseException as error:
            message = _message(error, started=True)
            if message is not None:  # reported here: Hydra would add a line of its own
                _complain(message)
            a_bug = message is None and not isinstance(error, KeyboardInterrupt)
            _discard(run_dir, keep=set(run_dir.iterdir()) if a_bug else before)  # a bug leaves all there is to see
            if self.sweep_dir is None:
                if message is None:
                    raise
                self.exit_code = USER_ERROR
                return
            kinds = {KeyboardInterrupt: "interrupted", DoesNotFitError: "skipped"}
            status = kinds.get(type(error), "failed")
            facts |= {"status": status, "error": _one_line(message or f"{type(error).__name__}: {error}")}
            facts["seconds"] = time.perf_counter() - start
            if not isinstance(error, Exception):
                raise
            if message is None:
                traceback.print_exception(error)
            if status == "failed":
                self.exit_code = JOBS_FAILED
        else:
            if not passed and self.exit_code == DONE:
                self.exit_code = NO_PARITY


def _run_task(cfg: DictConfig, run_dir: Path, facts: dict[str, Any], start: float) -> bool:
    """Runs the task of a composed configuration and writes timing.csv and manifest.json."""
    config = _config(cfg)
    if not os.access(run_dir, os.W_OK):
        raise UserError(f"{shown(run_dir)}: cannot be written; choose another folder with hydra.run.dir=DIR")
    hashing = runtime.begin_hashing(config)
    task = importlib.import_module(f"gpt2x.tasks.{config.task.name}")
    if not gc.isenabled():  # of what is imported, nothing is ever garbage
        gc.freeze()
        gc.enable()
    outcome = task.run(config, config.task, run_dir)
    hashing.join()

    from gpt2x.runs import tables as results

    seconds = time.perf_counter() - start
    timings = [results.TimingRow(stage, took) for stage, took in (outcome.timings | {"total": seconds}).items()]
    results.write_rows(run_dir / "timing.csv", results.TimingRow, timings)
    facts |= {"status": "done", "error": None}
    facts |= runtime.manifest(cast(dict, OmegaConf.to_container(cfg, resolve=True)), outcome, seconds)
    write_text(run_dir / "manifest.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return outcome.passed


def _config(cfg: DictConfig) -> Config:
    """The settings as dataclasses; texts as they are, though one may look like OmegaConf's `???` for missing."""
    container = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    rest = OmegaConf.merge(cfg, {"prompt": None, "decode": {"stop": None}})
    if "gen_prompt" in cfg.task:
        rest.task.gen_prompt = None
    config = cast(Config, OmegaConf.to_object(rest))
    if "gen_prompt" in cfg.task:
        config.task = replace(config.task, gen_prompt=container["task"]["gen_prompt"])
    return replace(config, decode=replace(config.decode, stop=container["decode"]["stop"]), prompt=container["prompt"])


def _run_hydra_on(argv: list[str], session: _Session) -> None:
    parser = get_args_parser()
    parser.error = _refuse
    if "--version" in argv:
        print(f"gpt2x {__version__}")
        return
    hydra_version.setbase("1.3")
    ConfigStore.instance().store("schema", Config)
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name, schema, group="schema/task")
    OmegaConf.register_new_resolver("job_key", _job_key, replace=True)
    OmegaConf.register_new_resolver("stamp", lambda: session.stamp, replace=True)
    args = parser.parse_intermixed_args(argv)  # Hydra's own call fails on overrides before and after a flag
    args.overrides = _checked(args.overrides)
    _run_hydra(
        args=args,
        args_parser=parser,
        task_function=session.job,
        config_path=str(bundled("conf")),
        config_name="config",
    )


def _checked(overrides: list[str]) -> list[str]:
    """Overrides for Hydra; UserError where one is no setting, empty, or contradicts another.

    Prompts and stops are text: `${` in one is not an interpolation, nor does a backslash before it escape it.
    """
    groups = {folder.name for folder in bundled("conf").iterdir() if folder.is_dir() and folder.name != "hydra"}
    known = {*groups, *_keys(Config), *(key for schema in SCHEMAS.values() for key in _keys(schema, "task."))}
    checked, keys = [], set()
    for override in overrides:
        key, (_, equals, value) = _key(override), override.partition("=")
        if not equals or not key or (key in groups and value in ("", "null")):
            a_task = (bundled("conf") / "task" / f"{override}.yaml").is_file()
            hint = f"did you mean 'task={override}'?" if a_task else "see gpt2x --help"
            raise UserError(f"{override!r}: write KEY=VALUE, and for a group one of its options; {hint}")
        if key not in known and not key.startswith(("hydra.", "hydra/")):
            raise UserError(f"{key}: no such setting{_nearest_key(key)}")
        keys.add(key)
        text = key in ("prompt", "task.gen_prompt", "decode.stop")
        checked.append(re.sub(r"(\\*)\$\{", r"\1\1\\${", override) if text else override)
    recorded = ("prompt", "task.gen_prompt", "decode.max_new_tokens")
    for one, other in (("prompt", "prompts_file"), *(("task.reference", key) for key in recorded)):
        if {one, other} <= keys:
            raise UserError(f"{one} and {other} contradict each other: give one of them")
    return checked


def _key(override: str) -> str:
    """`decode.top_p` of `+decode.top_p=0.9`, `hydra/launcher` of `hydra/launcher@here=joblib`."""
    return override.partition("=")[0].lstrip("+").partition("@")[0]


def _job_key(*, _root_: DictConfig) -> str:
    """The folder of a job: a hash of its whole configuration, so that no prompt ever becomes a path."""
    config = OmegaConf.to_container(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]))
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _chosen(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """Key -> value of each override: for a group the option's name, else the value as composed."""
    choices = HydraConfig.get().runtime.choices
    values = {}
    for override in overrides:
        key = _key(override)
        value = choices[key] if key in choices else OmegaConf.select(cfg, key)
        values[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return values


def _discard(run_dir: Path, keep: set[Path]) -> None:
    """Removes what a run that failed wrote, and the folders made for it; never a file of the user's.

    What a run can go on from (state.pt of a training, state.json of many generations) stays, with all that
    belongs to it.
    """
    if not run_dir.exists() or any((run_dir / state).exists() for state in ("state.pt", "state.json")):
        return
    from gpt2x.tasks.registry import TABLES

    for name in (*TABLES, "parity.png", "benchmark.png", "manifest.json", "multirun.yaml"):
        if run_dir / name not in keep:
            (run_dir / name).unlink(missing_ok=True)
    if run_dir / "checkpoint" not in keep:
        shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)
    for folder in (run_dir, *run_dir.parents):
        if not folder.is_relative_to(Path.cwd()) or folder == Path.cwd():
            break
        try:
            folder.rmdir()
        except OSError:  # not empty, or not ours to remove
            break


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see gpt2x --help")


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _complain(message: str) -> int:
    print(f"gpt2x: error: {_one_line(message)}", file=sys.stderr)
    return USER_ERROR


def _message(error: BaseException, started: bool) -> str | None:
    """The line for what the user must change; None for a bug. Before a job has started, files are Hydra's folders."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain(error)
    if isinstance(error, OSError) and (not started or error.errno in _UNWRITABLE):
        return f"{error.filename}: {error.strerror}; choose another folder with hydra.run.dir=DIR"
    return None


def _explain(error: Exception) -> str:
    """Hydra's and OmegaConf's errors, which take many lines, in one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: not one of {', '.join(error.options)}{nearest(name, error.options)}"
    quotes = "text with special characters wants two pairs of quotes: 'key=\"text\"'"
    if isinstance(error, OverrideParseException):
        return f"cannot parse {error.override!r}; {quotes}"
    line = str(error).partition("\n")[0]
    if line.startswith("Ambiguous value"):
        return f"{line}: add -m for one job each; {quotes}"
    cause = error.__cause__ or error
    message = str(cause).partition("\n")[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {message}" if key else message


def _nearest_key(key: str) -> str:
    keys = _keys(Config)
    leaf = key.rpartition(".")[2]
    same_leaf = [candidate for candidate in keys if candidate.rpartition(".")[2] == leaf]
    return f"; did you mean {same_leaf[0]!r}?" if same_leaf else nearest(key, keys)


def _keys(schema: type, prefix: str = "") -> list[str]:
    hints = get_type_hints(schema)
    keys = []
    for field in fields(schema):
        keys.append(prefix + field.name)
        if is_dataclass(hints[field.name]):
            keys += _keys(cast(type, hints[field.name]), f"{prefix}{field.name}.")
    return keys
