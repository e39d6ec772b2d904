"""A fresh Debian system, of this host's release, with the packages installed by apt; and what runs in it."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
SYSTEM = REPO / "tests/setup/system.sh"
INSIDE = "/packages"
"""Where the packages lie in the system."""


def codename() -> str:
    """This host's release, such as bookworm: what is built here is for it. Empty on other systems than Debian."""
    text = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.M) if re.search(r"^ID=debian$", text, re.M) else None
    return found[1] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandDone:
    status: int
    out: str
    """Both streams."""


class System:
    """A copy of a bare system, or of another as it is now; the copy is thrown away."""

    def __init__(self, root: Path, *, like: "System | None" = None) -> None:
        self.root = root
        if like:
            subprocess.run(["cp", "-a", like.root, root], check=True)
            return
        bare = REPO / "build/packages" / codename()
        subprocess.run(["bash", SYSTEM, "make", codename(), bare], check=True)
        subprocess.run(["cp", "-a", bare, root], check=True)
        (root / "packages").mkdir()
        self.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def add(self, package: Path) -> str:
        """Put a package where apt in the system finds it; its name there."""
        shutil.copy(package, self.root / "packages")
        return f"{INSIDE}/{package.name}"

    def run(self, *words: str) -> CommandDone:
        done = subprocess.run(
            ["bash", SYSTEM, "run", self.root, "env", "DEBIAN_FRONTEND=noninteractive", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600,
        )  # fmt: skip
        return CommandDone(status=done.returncode, out=done.stdout)

    def good(self, *words: str) -> str:
        done = self.run(*words)
        assert done.status == 0, f"{words}: {done.status}\n{done.out}"
        return done.out

    def install(self, *packages: str) -> None:
        self.good("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages)


def repacked(package: Path, version: str, into: Path) -> Path:
    """The same package as another version of mpsr."""
    tree = into / package.stem
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    fields = control.read_text()
    old = re.search(r"^Version: ([0-9.]+)", fields, re.M)
    assert old
    control.write_text(fields.replace(f"Version: {old[1]}", f"Version: {version}").replace(f"= {old[1]}", f"= {version}")
                       .replace(f"<< {old[1]}.", f"<< {version}."))  # fmt: skip
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, into], check=True, stdout=subprocess.DEVNULL)
    (built,) = into.glob(f"{fields.split()[1]}_{version}*.deb")
    return built
