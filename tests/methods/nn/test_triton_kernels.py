"""Triton kernels without a GPU: their tests in Triton's interpreter, in a process of its own, and what the compiler makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
NUMBERS = ("leak", "gain", "threshold", "v_init", "c0", "c1", "c2")


def test_the_kernels_pass_their_tests_in_tritons_interpreter():
    # Triton asks for the variable when it is imported.
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[2])}
    files = [str(HERE / name) for name in ("test_lif_triton.py", "test_recurrence_triton.py")]
    command = [sys.executable, "-m", "pytest", "-rs", "-x", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, env=environment, cwd=HERE.parents[2], capture_output=True, text=True, timeout=250)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert "." * 20 in found.stdout
    assert "SKIPPED" not in found.stdout


def ptx(kernel, signature: dict[str, str], constants: dict[str, object]) -> str:
    """The assembly for compute capability 9.0 of a kernel with these types; compiling needs no device."""
    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    rest = {name: None for name, kind in types.items() if kind == "constexpr"} | constants
    source = triton.compiler.ASTSource(kernel, types, rest)
    options = {"enable_fp_fusion": False}
    return triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("nothing is compiled in the interpreter")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from methods.nn import lif_kernels, recurrence_kernels

    return lif_kernels, recurrence_kernels


def test_the_kernels_of_the_lif_compile_for_a_gpu_without_contracting_products_and_sums(kernels):
    lif, _ = kernels
    switches = {"RESET": 0, "STRICT": False, "SCALED": True, "CHANNELS": True, "BLOCK": 256}
    forward = {"x": "*bf16", "s": "*bf16", "u": "*fp32", "v0": "*fp32", "v1": "*fp32", "learnt": "*fp32", "levels": "*fp32"}
    sizes = {"x_stride": "i64", "steps": "i32", "size": "i32", "channels": "i32", "inner": "i32", **dict.fromkeys(NUMBERS[:4], "fp32")}
    assert "fma" not in ptx(lif.forward, forward | sizes, switches)
    backward = {"x": "*bf16", "v0": "*fp32", "g": "*bf16", "g_v1": "*fp32", "learnt": "*fp32", "levels": "*fp32", "scratch": "*fp32"}
    sizes |= {
        "g_x": "*bf16",
        "g_v0": "*fp32",
        "g_leak": "*fp64",
        "g_level": "*fp64",
        "g_stride": "i64",
        "rounds": "i32",
        **dict.fromkeys(NUMBERS, "fp32"),
    }
    assert "fma.rn.f32" not in ptx(lif.backward, backward | sizes, switches | {"ATTACHED": True, "SURROGATE": 4})


def test_the_kernels_of_the_recurrence_compile_for_a_gpu_without_contracting_products_and_sums(kernels):
    _, recurrence = kernels
    from triton.language import float32

    switches = {"REAL": float32, "BLOCK": 128}
    sizes = {"a": "*fp32", "a_stride": "i64", "steps": "i32", "length": "i32", "size": "i32", "starts": "*fp32"}
    assert "fma" not in ptx(recurrence.forward, sizes | {"b": "*fp32", "b_stride": "i64", "h": "*fp32"}, switches)
    backward = {"g": "*fp32", "g_stride": "i64", "h": "*fp32", "h0": "*fp32", "g_b": "*fp32", "sums": "*fp64", "ends": "*fp32"}
    assert "fma.rn.f32" not in ptx(recurrence.backward, sizes | backward, switches)
