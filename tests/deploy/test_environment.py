import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from saker.deploy.local import environment


def test_two_that_want_an_environment_at_once_have_it_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (requirements := tmp_path / "nothing.txt").write_text("# no packages\n")
    run, commands = environment._run, []

    def noted(command: list[str], of: Path) -> None:
        commands.append(command)
        run(command, of)

    monkeypatch.setattr(environment, "_run", noted)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(environment.python_of, [requirements] * 2)
    assert one == other
    assert sum(command[1] == "venv" for command in commands) == 1
    subprocess.run([one, "-c", ""], check=True)
