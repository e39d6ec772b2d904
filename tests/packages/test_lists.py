"""The packages' lists leave out nothing that `make install` installs, and the version is the same wherever it is written."""

import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

REPO = Path(__file__).parents[2]
LISTS = {path.stem: path.read_text().split() for path in sorted((REPO / "debian").glob("*.install"))}
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
PLUGIN_DIR = "/usr/lib/x86_64-linux-gnu/slurm-wlm"


def installed(into: Path) -> list[str]:
    """What the makefile installs beside the Python package, relative to /; stand-ins for what would be compiled."""
    built = into / "built"
    built.mkdir()
    for name in ("mpsr-launch", "mpsr-hook", "mpsr-enter", "libmpsr-ending.so", "mpsr.so"):
        (built / name).touch()
    places = [f"BUILD={built}", f"DESTDIR={into}/root", "PREFIX=/usr", f"PLUGIN_DIR={PLUGIN_DIR}"]
    subprocess.run(["make", "-s", "install-files", *places], cwd=REPO, check=True)
    root = into / "root"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def takers(file: str) -> list[str]:
    """The packages that take a file: a pattern names it or a directory above it, as dh_install reads it."""
    above = [file, *map(str, Path(file).parents)]
    return [name for name, patterns in LISTS.items() if any(fnmatchcase(a, p) for a in above for p in patterns)]


def test_each_file_is_in_one_package(tmp_path: Path) -> None:
    files = installed(tmp_path)
    assert {f"usr/libexec/mpsr/mpsr-{name}" for name in ("launch", "hook", "enter")} <= set(files)
    assert {file: takers(file) for file in files if len(takers(file)) != 1} == {}


def test_the_plugin_is_alone_in_its_package(tmp_path: Path) -> None:
    assert [file for file in installed(tmp_path) if "mpsr-plugin" in takers(file)] == [f"{PLUGIN_DIR[1:]}/mpsr.so"]


def test_what_root_runs_is_not_for_login_hosts(tmp_path: Path) -> None:
    taken = [file for file in installed(tmp_path) if "mpsr-user" in takers(file)]
    assert f"{PLUGIN_DIR[1:]}/mpsr.so" not in taken
    assert not [file for file in taken if file.startswith(("usr/libexec/", "usr/share/mpsr/"))]


def test_each_pattern_takes_something(tmp_path: Path) -> None:
    files = [*installed(tmp_path), "usr/lib/python3.11/dist-packages/resilience/__init__.py"]
    files += [f"usr/bin/{name}" for name in PROJECT["scripts"]]
    for patterns in LISTS.values():
        for pattern in patterns:
            assert any(fnmatchcase(str(a), pattern) for f in files for a in (f, *Path(f).parents)), pattern


def test_make_install_installs_no_other_way() -> None:
    """Whatever it puts in place is put there by install-files, which the packages use as well, or by pip."""
    recipe = re.search(r"^install:.*\n((?:\t.*\n)+)", (REPO / "Makefile").read_text(), re.M)
    assert recipe
    assert not re.search(r"(?<!/pip )\binstall -|\b(?:cp|ln|mkdir|tee)\b|>", recipe[1]), recipe[1]
    assert recipe[1].count("install-files") == 1
    assert [f"usr/bin/{name}" for name in PROJECT["scripts"]] == [
        p for p in LISTS["mpsr-user"] if p.startswith("usr/bin/")
    ]


def test_the_versions_agree() -> None:
    first = (REPO / "debian/changelog").read_text().split("\n", 1)[0]
    assert re.match(r"mpsr \((.*?)\)", first)[1] == PROJECT["version"]  # type: ignore[index]
