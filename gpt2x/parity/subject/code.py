"""Runs a subject's own code: its errors become one line, and it changes nothing for the rest of the process."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch

from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown


class TimeIsUpError(BaseException):
    """Code ran for longer than allowed. Not an Exception, so that the code does not catch it."""


class SubjectError(Exception):
    """The subject's own code failed, or its answer is not that of a GPT-2: one line, with the place in the code."""


@contextmanager
def subject_code() -> Iterator[None]:
    """Encloses every call into the subject: whatever it raises becomes a SubjectError; see also contained()."""
    try:
        with contained():
            yield
    except BaseException as error:
        if isinstance(error, SubjectError | KeyboardInterrupt | TimeIsUpError) or is_out_of_memory(error):
            raise
        raise SubjectError(in_one_line(error)) from error


@contextmanager
def contained() -> Iterator[None]:
    """Restores what the subject's code may set for the whole process; what it prints goes to stderr."""
    folder, grad, threads = Path.cwd(), torch.is_grad_enabled(), torch.get_num_threads()
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.chdir(folder)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def in_one_line(error: BaseException) -> str:
    """`KeyError: 'emb' (model.py, line 12)`: the place is the innermost one that is not in a library."""
    frames = own_frames(error)
    place = f" ({shown(Path(frames[-1].filename))}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({shown(Path(error.filename))}, line {error.lineno})"
    message = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    return f"{type(error).__name__}: {' '.join(message.split())[:300]}{place}"


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The places of an error's traceback that are neither in a library nor in gpt2x, the innermost one last."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]


def is_users(file: str) -> bool:
    """Whether the code of this file is neither in a library nor in gpt2x."""
    libraries = ("<", sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parents[1]))
    return not file.startswith(libraries)
