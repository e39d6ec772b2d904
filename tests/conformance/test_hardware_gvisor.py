"""A machine that refuses as gVisor does: its name, no kcmp, no kernel log, no server, no export. The rest is asked, nothing dangerous."""

import subprocess
from pathlib import Path

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.conformance.hardware_kit import asked, control, environ, refuse
from tests.gpu.experiments import DANGEROUS
from tests.gpusim.host import SimHost

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

int uname(struct utsname *name) {
    int (*real)(struct utsname *) = (int (*)(struct utsname *))dlsym(RTLD_NEXT, "uname");
    const int result = real(name);
    strcpy(name->release, "4.4.0");
    return result;
}

long syscall(long number, ...) {
    va_list given;
    va_start(given, number);
    long a = va_arg(given, long), b = va_arg(given, long), c = va_arg(given, long);
    long d = va_arg(given, long), e = va_arg(given, long), f = va_arg(given, long);
    va_end(given);
    if (number == SYS_kcmp) {
        errno = ENOSYS;
        return -1;
    }
    long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(number, a, b, c, d, e, f);
}
"""
SERVERLESS = 'if [ "$1" = -d ]; then echo "cannot create a server here"; exit 1; fi\nexec "$REAL" "$@"'


@pytest.fixture(name="shim", scope="module")
def _shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", built, folder / "shim.c", "-ldl"], check=True)
    return built


def test_what_can_be_asked_is_and_nothing_dangerous(shim: Path, tmp_path: Path) -> None:
    names = ("environment", "two_servers", "kept_memory", "zeroing", "sparse", "stand_in", *DANGEROUS)
    with SimHost(memory=MEMORY_MIB) as host:
        (host.path / "kmsg").unlink()
        there = control(host, tmp_path / "bin", SERVERLESS)
        refuse(host, "cuMemExportToShareableHandle", 801)
        told = asked(tmp_path / "out", environ(host, there, LD_PRELOAD=str(shim)), *names)
    assert told.results["gvisor"] is True
    assert told.results["without_mps"].startswith("state none, rc 1, cannot create a server here")
    assert {told.how(name) for name in DANGEROUS} == {"not run: dangerous, and this is gVisor"}
    assert {told.how(name) for name in names if name not in DANGEROUS} == {"ended with status 0"}
    assert told.verdict("fresh_memory").agrees
    assert told.verdict("raw_fd_keeps_memory").why.count("CUDA error 801")
    assert told.found("sparse")["outside"]["not there"]
