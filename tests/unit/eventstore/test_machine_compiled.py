"""What was compiled is not run any more when anything that it was made from has changed."""

import shutil
from pathlib import Path

import pytest

from eventstore.machine import compiled, kernel


@pytest.mark.parametrize("changed", ["machine/rules.py", "machine/siphash.py", "rows.py"])
def test_compiled_code_is_kept_under_a_name_of_all_its_sources(
    changed: str, tmp_path: Path
) -> None:
    folder = Path(compiled.__file__).parent
    hashed = compiled.hash_of_sources(folder)
    assert kernel.decide.py_func.__qualname__ == f"decide.{hashed}"  # type: ignore[attr-defined]
    copy = tmp_path / "machine"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(folder.parent / "rows.py", tmp_path)
    assert compiled.hash_of_sources(copy) == hashed
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    assert compiled.hash_of_sources(copy) != hashed
