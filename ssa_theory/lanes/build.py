"""From C++ to a function, by the system's compiler; what was compiled once is found again."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from ssa_theory.lanes.program import Unsupported
from ssa_theory.lanes.vector import HEADER

_LEVEL = "-O1"  # with these flags as fast as -O2, and compiled in half the time
_TARGET = "-march=native"
_FLAGS = (
    "-fexpensive-optimizations",  # which multiplies and adds at once
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-w",
)


@cache
def compiler() -> str:
    """The C++ compiler: $CXX, g++ or clang++. Raises Unsupported where there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    raise Unsupported("no C++ compiler: install g++, or name one by CXX")


@cache
def _output_of(*given: str) -> str:
    """What the compiler answers."""
    return subprocess.run(given, capture_output=True, text=True, check=False).stdout


def instructions() -> str:
    """Which vector instructions the compiler uses here: avx512, avx2 or plain."""
    defined = _output_of(compiler(), _TARGET, "-dM", "-E", "-x", "c++", os.devnull)
    if "__AVX512F__" in defined and "__AVX512DQ__" in defined:
        return "avx512"
    return "avx2" if "__AVX2__" in defined else "plain"


def identity() -> str:
    """What compiled code depends on beside its source."""
    target = _output_of(compiler(), _TARGET, "-Q", "--help=target")
    version = _output_of(compiler(), "--version")
    return "\n".join([platform.machine(), version, target, _TARGET, _LEVEL, *_FLAGS])


def vector_bytes() -> int:
    """The size of one vector."""
    return {"avx512": 64, "avx2": 32, "plain": 16}[instructions()]


def registers() -> int:
    """How many vectors the processor holds: of x86 only AVX-512 has more than 16."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return 16 if x86 and instructions() != "avx512" else 32


def lanes(dtype: torch.dtype) -> int:
    """How many models stand in one vector."""
    return vector_bytes() // dtype.itemsize


def cache_folder() -> Path:
    """Where compiled code is kept: $SSA_THEORY_CACHE, or ssa_theory in the user's cache folder; a
    folder of this process where that cannot be written.
    """
    named = os.environ.get("SSA_THEORY_CACHE")
    if named is None:
        base = os.environ.get("XDG_CACHE_HOME")
        try:
            named = str((Path(base) if base else Path.home() / ".cache") / "ssa_theory")
        except RuntimeError:  # nobody's home
            return _own_folder()
    folder = Path(named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    return folder if usable else _own_folder()


@cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="ssa_theory-"))


def build(body: str, dtype: torch.dtype) -> ctypes.CDLL:
    """The library of some C++ that starts with `vector.HEADER`. Raises Unsupported where it does
    not compile.
    """
    real, whole = ("double", "int64_t") if dtype == torch.float64 else ("float", "int32_t")
    header = f"#define REAL {real}\n#define INT {whole}\n#define LANES {lanes(dtype)}\n"
    header += f"#define DOUBLE {int(dtype == torch.float64)}\n" + HEADER
    library = cache_folder() / f"{_name(header + body)}.so"
    if not library.exists():
        start = _compiled_header(header, library.parent)
        _compile(f'#include "{start}"\n{body}', library, "-x", "c++", "-shared")
    return ctypes.CDLL(str(library))


def _compiled_header(text: str, folder: Path) -> Path:
    """The header as a file, beside it as the compiler reads it fastest: once for all steps."""
    header = folder / f"{_name(text)}.hpp"
    if not header.exists():
        _compile(text, header.with_name(f"{header.name}.gch"), "-x", "c++-header")
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, header)
    return header


def _compile(source: str, made: Path, *options: str) -> None:
    """A file, whole or not at all, whoever else compiles it."""
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        text, own = Path(folder) / "step.cpp", Path(folder) / "made"
        text.write_text(source, encoding="utf-8")
        given = [compiler(), _LEVEL, _TARGET, *_FLAGS, *options, str(text), "-o", str(own)]
        done = subprocess.run(given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unsupported(f"{compiler()} fails: {' '.join(done.stderr.split())[:200]}")
        os.replace(own, made)


def _name(source: str) -> str:
    return hashlib.sha256((source + identity()).encode()).hexdigest()[:24]
