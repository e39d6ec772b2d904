"""DKMS builds and signs the module from kernel_module/ alone, in a scratch tree and with a scratch key."""

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guard.kernels import MODULE, Kernel, kernels
from tests.guard.modules import copy_sources

SIGNED = b"~Module signature appended~\n"


def setting(name: str) -> str:
    match = re.search(rf'^{re.escape(name)}="(.*)"$', (MODULE / "dkms.conf").read_text(), re.M)
    assert match
    return match[1]


def test_the_versions_agree() -> None:
    version = re.search(r'MODULE_VERSION\("(.*)"\)', (MODULE / "main.c").read_text())
    assert version
    assert version[1] == setting("PACKAGE_VERSION")


def signer() -> str:
    """The kernels' own signer, of the first kernel whose one runs here: that of Debian 11 wants another libcrypto."""
    found = [
        path for kernel in kernels() for path in kernel.headers.parents[1].glob("lib/linux-kbuild-*/scripts/sign-file")
    ]
    for path in found:
        if subprocess.run([path], capture_output=True, check=False).returncode != 127:
            return str(path)
    raise FileNotFoundError(f"no sign-file that runs: {found}")


@pytest.mark.guard
@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("dkms") is None, reason="no dkms (make guard)")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a key with")
@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.series) for kernel in kernels() if not kernel.debug])
def test_dkms_builds_and_signs(kernel: Kernel, tmp_path: Path) -> None:
    name, version = setting("PACKAGE_NAME"), setting("PACKAGE_VERSION")
    for place in ("tree", "source", "installed"):
        (tmp_path / place).mkdir()
    copy_sources(tmp_path / "source" / f"{name}-{version}")
    sign_file = signer()
    environment = {
        **os.environ,
        "sign_file": sign_file,
        "mok_signing_key": str(tmp_path / "key"),
        "mok_certificate": str(tmp_path / "certificate"),
    }
    trees = ["--dkmstree", str(tmp_path / "tree"), "--sourcetree", str(tmp_path / "source")]
    trees += ["--installtree", str(tmp_path / "installed")]
    which = ["-m", name, "-v", version, "-k", kernel.release, "--kernelsourcedir", str(kernel.headers)]
    for verb in ("add", "build"):
        done = subprocess.run(
            ["dkms", verb, *which, *trees], env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tmp_path / "tree" / name / version / kernel.release).rglob("mps_guard.ko*")
    data = built.read_bytes()
    assert (lzma.decompress(data) if built.suffix == ".xz" else data).endswith(SIGNED)
    info = subprocess.run(["modinfo", built], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^version: +{re.escape(version)}$", info, re.M)
    assert re.search(rf"^vermagic: +{re.escape(kernel.release)} ", info, re.M)
