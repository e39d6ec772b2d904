"""What the tests of plugin and supervisor share: both built, a node, the C parsers behind a pipe, one Slurm cluster."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.spank.node import ROOT
from tests.spank.site import Site, site
from tests.spank.slurm import cluster, missing
from tests.spank.supervisor_kit import Node

_ORACLE = (
    "tests/spank/oracle.c spank_plugin/plugin/requested_options.c spank_plugin/plugin/site.c spank_plugin/plugin/script.c "
    "spank_plugin/shared/options.c spank_plugin/shared/lease.c spank_plugin/shared/visible.c spank_plugin/shared/namespace.c "
    "spank_plugin/shared/text.c "
    "spank_plugin/launcher/packet.c spank_plugin/launcher/transitions.c"
).split()
_STRICT = "-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wconversion -Wshadow -Werror -O1 -g -Ispank_plugin".split()
_SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all".split()


@pytest.fixture(scope="session")
def built() -> Path:
    """build/mpsr.so and build/mpsr-launch, up to date."""
    subprocess.run(["make", "-s", "-C", "spank_plugin", f"OUT={ROOT / 'build'}"], cwd=ROOT, check=True, timeout=60)
    return ROOT / "build"


@pytest.fixture
def node(built: Path, tmp_path: Path) -> Iterator[Node]:
    it = Node(tmp_path)
    yield it
    it.agent.close()


@dataclass(slots=True)
class Oracle:
    """The C parsers: question and text in, words of the answer out."""

    process: subprocess.Popen[str]

    def ask(self, question: str, text: bytes = b"") -> list[str]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{question} {text.hex()}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the C side died: see its report on standard error"
        return answer.rstrip("\n").split(" ")


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """The oracle, built with ASan and UBSan. Its end is part of the test: a leak fails it."""
    program = tmp_path_factory.mktemp("oracle") / "oracle"
    subprocess.run(["gcc", *_STRICT, *_SANITIZERS, "-o", program, *_ORACLE], cwd=ROOT, check=True, timeout=60)
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    )
    yield Oracle(process)
    assert process.stdin
    process.stdin.close()
    assert process.wait(10) == 0


@pytest.fixture(scope="session")
def slurm(built: Path) -> Iterator[Site]:
    """A cluster with the plugin, for all tests of the session. Left out where the machine lacks Slurm or root."""
    if lacking := missing():
        pytest.skip(f"no private cluster on this machine: {', '.join(lacking)}")
    # not pytest's own directory: munge and ordinary users need a path that everyone may walk
    with (
        tempfile.TemporaryDirectory(prefix="mpsr-spank-", dir="/tmp", ignore_cleanup_errors=True) as name,
        cluster(Path(name)) as running,
        site(running, built) as it,
    ):
        yield it


@pytest.fixture
def plugin(slurm: Site) -> Iterator[Callable[..., None]]:
    """Call it with plugstack.conf arguments for one test; the plain ones come back afterwards."""
    yield slurm.plugin
    slurm.plugin()
