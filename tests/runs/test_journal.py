"""The journal of a long job: what it reads back of tables that were torn anywhere."""

import os
from pathlib import Path
from typing import Any

import pytest

from gpt2x.decoding.parts import Plan
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.runs.journal import Journal

NASTY = ['"', '""', '","', "\n", "\r\n", "\r", 'a"\r\n"b', "", "é😀", "\x00\u2028", "1\r\n2,3\r\n"]

PLAN = Plan(asked="auto", batch_size=2, part=4)


@pytest.mark.parametrize("name", ["generations.csv", "tokens.csv"])
def test_all_rows_before_a_torn_one_are_read(tmp_path: Path, name: str) -> None:
    settings = [
        *("m", "w", "cpu", "int8", True, 1.0, None, 0.5, None, None, 1.0, None, 9, 0, '["\\n"]', 1, 1.0, "refuse", 10)
    ]
    rows: dict[type, list[Any]] = {
        GenerationRow: [
            GenerationRow(f"p{i}", i, text, text[::-1], 10 + i, 12, "stop", -1.5 * i, *settings)
            for i, text in enumerate(NASTY)
        ],
        TokenRow: [TokenRow(f"p{i}", i, 0, 1, 10, text, -0.5, True, 300) for i, text in enumerate(NASTY)],
    }
    types = {"tokens.csv": TokenRow, "generations.csv": GenerationRow}
    written = Journal(tmp_path, types, Plan)
    written.rewrite(written.rows, PLAN)
    ends = []
    for i in range(len(NASTY)):
        written.append({table: [found[i]] for table, found in rows.items()})
        ends.append((tmp_path / name).stat().st_size)
    content = (tmp_path / name).read_bytes()
    for length in range(len(content), -1, -1):
        os.truncate(tmp_path / name, length)
        read = Journal(tmp_path, types, Plan)
        assert read.rows[types[name]] == rows[types[name]][: sum(end <= length for end in ends)], content[:length]
    assert read.facts == PLAN
