"""contract.h and contract.sh are what contract.toml says, and say all of it."""

import re
import shutil
import subprocess

import pytest

from resilience.contract import contract, render


@pytest.mark.parametrize("template", render.OUTPUTS)
def test_committed_files_are_not_stale(template: str) -> None:
    path = render.OUTPUTS[template]
    assert path.read_text(encoding="utf-8") == render.render(template), "run: python -m resilience.contract.render"


def test_check_names_a_stale_file(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render.main(["--check"]) == 0
    assert capsys.readouterr().err == ""
    stale = render.ROOT / "spank_plugin/plugin/mpsr.map"
    monkeypatch.setitem(render.OUTPUTS, "contract.h.j2", stale)
    assert render.main(["--check"]) == 1
    assert "mpsr: spank_plugin/plugin/mpsr.map: stale" in capsys.readouterr().err


def test_the_header_has_every_name() -> None:
    header = render.render("contract.h.j2")
    for table, prefix in (("env", "MPSR_ENV_"), ("path", "MPSR_PATH_"), ("exit", "MPSR_EXIT_")):
        for name in contract()[table]:
            assert re.search(rf"^#define {prefix}{name.upper()} ", header, re.MULTILINE), name
    for name, spec in contract()["option"].items():
        assert f'X("{name}", "{spec["key"]}", "{spec["env"]}"' in header


def test_the_shell_file_gives_the_same_values() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = f". {render.OUTPUTS['contract.sh.j2']}; set -o posix; set"
    shown = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, timeout=10).stdout
    got = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("mpsr_"))
    for name, value in contract()["path"].items():
        assert got[f"mpsr_path_{name}"].strip("'") == value
    for name, value in contract()["exit"].items():
        assert got[f"mpsr_exit_{name}"] == str(value)
    for name, value in contract()["env"].items():
        assert got[f"mpsr_env_{name}"] == value


def test_options_are_fit_for_the_wire() -> None:
    keys = [spec["key"] for spec in contract()["option"].values()]
    charset = set(contract()["wire"]["charset"])
    assert len(set(keys)) == len(keys)
    for name, spec in contract()["option"].items():
        assert name == "mps" or name == f"mps-{spec['key']}"
        assert set(spec["key"]) <= charset
        assert spec["env"].startswith("MPSR_")
        assert all(set(choice) <= charset for choice in spec.get("choices", []))
