"""NVIDIA's own headers and assembler, where this machine has them, and what a C++ compiler says about their functions.

Looked for in build/toolkit (`make toolkit` puts them there from PyPI), in NVIDIA's Python packages beside this interpreter, and in
an installed CUDA toolkit; programs first of all on PATH. A function's shape is
told as one word an argument: `p` for a pointer, `n` or `f` and the bytes for a whole or a floating number. That is what the
calling convention depends on; enums and integers of one size are the same to it.
"""

import ctypes
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HINT = "make toolkit fetches it"

Shape = tuple[str, ...]

_SHOW = r"""
#include <cstddef>
#include <cstdio>
#include <type_traits>
template <class T> void kind() {
    if (std::is_pointer<T>::value)
        printf(" p");
    else
        printf(" %c%zu", std::is_floating_point<T>::value ? 'f' : 'n', sizeof(T));
}
template <class R, class... A> void shape(const char *name, const char *means, R (*)(A...)) {
    printf("%s %s", name, means);
    (kind<A>(), ...);
    printf("\n");
}
#define TEXT(x) #x
#define MEANS(x) TEXT(x)
#define SHAPE(x) shape(#x, MEANS(x), x);
#define NUMBER(x) printf("%s %lld\n", #x, (long long)(x));
#define PLACE(type, field) printf("%s.%s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type *)0)->field));
#define SIZE(type) printf("%s %zu\n", #type, sizeof(type));
"""


def find(path: str) -> Path | None:
    """A program (bin/nvcc) or header (include/cuda.h) of a CUDA toolkit."""
    if path.startswith("bin/") and (on_path := shutil.which(Path(path).name)):
        return Path(on_path)
    pips = (ROOT / "build/toolkit/nvidia", Path(sysconfig.get_path("purelib"), "nvidia"))
    places = [place for folder in pips for place in sorted(folder.glob("cu*"), reverse=True)]
    places += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    return next((place / path for place in places if (place / path).exists()), None)


@cache
def includes() -> Path | None:
    """The directory of cuda.h and nvml.h."""
    header = find("include/nvml.h")
    return header.parent if header and (header.parent / "cuda.h").exists() else None


def told(directory: Path, head: str, lines: Iterable[str]) -> list[list[str]]:
    """What a program of these lines prints, in words; compiled as C++ with the toolkit's headers in reach."""
    source, program = directory / "show.cpp", directory / "show"
    source.write_text(f"{head}\n{_SHOW}\nint main() {{\n" + "\n".join(lines) + "\nreturn 0;\n}\n")
    # Addresses of functions are taken and never called, so nothing is linked.
    link = ["-Wl,--unresolved-symbols=ignore-all", "-no-pie", "-w"]
    command = ["g++", "-std=c++17", "-O0", f"-isystem{includes()}", f"-I{HERE}", "-o", str(program), str(source), *link]
    subprocess.run(command, check=True)
    lines = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split() for line in lines]


def shapes(directory: Path, header: str, names: Iterable[str]) -> dict[str, tuple[str, Shape]]:
    """Name → the name that the header gives it (a macro may make a newer version of it) and its shape."""
    rows = told(directory, f"#include <{header}>", [f"SHAPE({name})" for name in names])
    return {row[0]: (row[1], tuple(row[2:])) for row in rows}


def exported(source: Path) -> dict[str, str]:
    """Functions that a C file of the simulator exports → their parameters as text, macros expanded."""
    text = subprocess.run(["gcc", "-E", "-P", str(source)], check=True, capture_output=True, text=True).stdout
    mark = r'__attribute__\s*\(\(visibility\("default"\)\)\)\s*\w[\w ]*?\b(cu\w+|nvml\w+)\s*\(([^)]*)\)\s*\{'
    return dict(re.findall(mark, text))


def shape_of(ctype: Any) -> str:
    """The same word for a ctypes type."""
    if ctype in (ctypes.c_void_p, ctypes.c_char_p) or hasattr(ctype, "contents") or issubclass(ctype, ctypes.Array):
        return "p"
    return f"{'f' if ctype in (ctypes.c_float, ctypes.c_double) else 'n'}{ctypes.sizeof(ctype)}"


def shape_of_argument(value: object) -> str:
    """The same word for a value as ctypes passes it on without a prototype."""
    if value is None or isinstance(value, bytes) or type(value).__name__ == "CArgObject":
        return "p"
    return "n4" if isinstance(value, int) else shape_of(type(value))
