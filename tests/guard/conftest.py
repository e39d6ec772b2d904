"""What the guard's tests share: each kernel's modules are built once, and each bootable kernel is run once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.guard import modules, vm
from tests.guard.kernels import BUILD, Kernel, bootable, kernels


class Bench:
    """Builds of each kernel, and the transcript of its machine. All machines start with the first test of the tier and
    run beside the others, since each takes a minute and keeps one processor half busy."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(max_workers=2)
        chosen = kernels()
        self._built = {kernel.release: self._pool.submit(self._build, kernel) for kernel in chosen}
        self._booted = {
            kernel.release: self._pool.submit(self._boot, kernel) for kernel in chosen if kernel.image is not None
        }

    def built(self, kernel: Kernel) -> dict[str, modules.Built]:
        """File name of each module without its suffix → the build."""
        return self._built[kernel.release].result()

    def transcript(self, kernel: Kernel) -> vm.Transcript:
        return self._booted[kernel.release].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _build(self, kernel: Kernel) -> dict[str, modules.Built]:
        work = self._work / kernel.release
        work.mkdir()
        made = {"mps_guard": modules.build_module(kernel, work)}
        if kernel.debug:
            made["mistakes"] = modules.build_mistakes(kernel, work)
        return made | {name: modules.build_shim(kernel, work, name) for name in modules.VARIANTS}

    def _boot(self, kernel: Kernel) -> vm.Transcript:
        work = self._work / kernel.release
        archive = vm.archive(self.built(kernel), work, debug=kernel.debug)
        transcript = vm.boot(bootable(kernel), archive, debug=kernel.debug)
        (BUILD / f"console-{kernel.release}.txt").write_text(transcript.text + transcript.mistakes)
        return transcript


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("guard"))
    yield made
    made.close()


def all_kernels() -> list[object]:
    """Parameters: every kernel whose headers are here."""
    return [pytest.param(kernel, id=kernel.series) for kernel in kernels()]


def debug_kernels() -> list[Kernel]:
    return [kernel for kernel in bootable_kernels() if kernel.debug]


def bootable_kernels() -> list[Kernel]:
    return [kernel for kernel in kernels() if kernel.image]
