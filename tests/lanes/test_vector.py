"""The functions of the vector units against float64, in units in the last place of float32."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from ssa_theory.lanes.build import build

BOUND = {
    "vexp": 2,
    "vexp_falling": 2,
    "vlog": 2,
    "vtanh": 2.5,
    "vsigmoid": 3,
    "verf": 3,
    "vrecip": 2,
    "vsqrt": 1,
    "vroot": 1,
}
"""Errors that each function may have, in units in the last place: what the README states."""
TRUE = {
    "vexp": np.exp,
    "vexp_falling": np.exp,
    "vlog": np.log,
    "vtanh": np.tanh,
    "vsigmoid": expit,
    "verf": erf,
    "vrecip": lambda x: 1 / x,
    "vsqrt": np.sqrt,
    "vroot": np.sqrt,  # of Adam, beside its epsilon
}
TINY = np.finfo(np.float32).tiny


@pytest.fixture(scope="module")
def functions(instructions: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    body = "".join(
        f'extern "C" void f_{name}(const float* x, float* y, int64_t n) '
        "{ const unsigned state = denormals_are_zero();\n"
        "for (int64_t i = 0; i < n; i += LANES) { V v; memcpy(&v, x + i, sizeof v); "
        f"v = {name}(v); memcpy(y + i, &v, sizeof v); }}\n"
        "denormals_are(state); }\n"
        for name in TRUE
    )
    library = build(body, torch.float32)

    def call(name: str) -> Callable[[np.ndarray], np.ndarray]:
        def values(x: np.ndarray) -> np.ndarray:
            padded = np.zeros(-(-len(x) // 16) * 16, dtype=np.float32)
            padded[: len(x)] = x
            out = np.empty_like(padded)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in (padded, out)]
            getattr(library, f"f_{name}")(*pointers, ctypes.c_int64(len(padded)))
            return out[: len(x)]

        return values

    return {name: call(name) for name in TRUE}


def every_exponent() -> np.ndarray:
    """Normal numbers of all exponents and either sign, 1,024 significands each."""
    rng = np.random.default_rng(0)
    exponent = np.repeat(np.arange(1, 255, dtype=np.uint32), 1024) << 23
    bits = exponent | rng.integers(0, 2**23, len(exponent), dtype=np.uint32)
    values = bits.view(np.float32)
    return np.concatenate([values, -values])


def units(measured: np.ndarray, true: np.ndarray) -> np.ndarray:
    """|measured - true| in units in the last place of the true value; results that are not normal
    count as zero, as the vector units make them.
    """
    true = np.where(np.abs(true) < TINY, 0.0, true)
    kept = np.where(np.abs(measured) < TINY, 0.0, measured.astype(np.float64))
    spacing = np.spacing(np.maximum(np.abs(true), TINY).astype(np.float32)).astype(np.float64)
    wrong = np.abs(kept - true) / spacing
    overflow = np.abs(true) > np.finfo(np.float32).max
    return np.where(overflow, np.where(kept == np.sign(true) * np.inf, 0.0, np.inf), wrong)


@pytest.mark.parametrize("name", TRUE)
def test_errors_stay_within_their_bound_over_all_exponents(name: str, functions: dict) -> None:
    x = every_exponent()
    if name in ("vlog", "vsqrt", "vroot"):
        x = x[x > (1e-30 if name == "vroot" else 0)]
    if name == "vexp_falling":
        x = x[x <= 0]
    with np.errstate(all="ignore"):
        true = TRUE[name](x.astype(np.float64))
        measured = functions[name](x)
        wrong = units(measured, true)
        edge = np.abs(np.abs(true) / TINY - 1) < 1e-3  # rounding decides whether it is normal
    assert np.isfinite(measured[np.isfinite(true) & (np.abs(true) < 3e38)]).all()
    assert wrong[~edge].max() <= BOUND[name], (x[wrong.argmax()], wrong.max())


def test_special_values(functions: dict, instructions: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([0.0, -0.0, inf, -inf, nan, 1e-42, 1.0], dtype=np.float32)
    small = float(x[5]) if instructions == "portable" else 0.0  # nobody asks the processor there
    expected = {
        "vexp": [1, 1, inf, 0, nan, 1, np.float32(np.e)],
        "vexp_falling": [1, 1, None, 0, nan, 1, None],
        "vlog": [-inf, -inf, inf, nan, nan, -inf, 0],
        "vtanh": [0, 0, 1, -1, nan, small, np.float32(np.tanh(1))],
        "vsigmoid": [0.5, 0.5, 1, 0, nan, 0.5, np.float32(expit(1))],
        "verf": [0, 0, 1, -1, nan, small * 2 / np.sqrt(np.pi), np.float32(erf(1))],
        "vrecip": [inf, -inf, 0, 0, nan, inf, 1],
        "vsqrt": [0, 0, inf, nan, nan, np.sqrt(small), 1],
    }
    for name, every in expected.items():
        given = [k for k, value in enumerate(every) if value is not None]
        measured, values = functions[name](x)[given], [every[k] for k in given]
        if name == "vexp_falling":  # what is not normal is read as zero
            measured = np.where(measured < TINY, 0.0, measured)
        np.testing.assert_allclose(
            measured, np.float32(values), rtol=3e-7, atol=2e-45, err_msg=name
        )


@pytest.mark.parametrize(("name", "true"), [("vmax", np.maximum), ("vmin", np.minimum)])
def test_the_larger_and_the_smaller_are_nan_where_either_is(
    name: str, true: np.ufunc, instructions: str
) -> None:
    body = (
        'extern "C" void both(const float* a, const float* b, float* y, int64_t n) '
        "{ for (int64_t i = 0; i < n; i += LANES) { V u, v; memcpy(&u, a + i, sizeof u); "
        f"memcpy(&v, b + i, sizeof v); u = {name}(u, v); memcpy(y + i, &u, sizeof u); }} }}\n"
    )
    special = np.float32([0, -1, 2, np.inf, -np.inf, np.nan, 1e-3, 5])
    a, b = np.repeat(special, 8), np.tile(special, 8)
    out = np.empty_like(a)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, out)]
    build(body, torch.float32).both(*pointers, ctypes.c_int64(len(a)))
    np.testing.assert_array_equal(out, true(a, b))
