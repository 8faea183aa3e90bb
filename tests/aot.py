"""Compile Triton kernels ahead of time, without a GPU: cases in, what ptxas made of them out.

`build` runs this file as a program of its own, because Triton decides at import whether it interprets or compiles.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities of A100, H100 and H200, B200."""

_VECTOR_LOAD = re.compile(r"\bld\.(?:volatile\.)?global\S*?(?:\.v(\d))?\.[bsuf](\d+)\s")


@dataclass(frozen=True)
class Case:
    """One specialisation of a kernel.

    Attributes:
        module: Where the kernel is, e.g. "refcocom_kernels.cuda.masks".
        kernel: Its name.
        arguments: A type for each run-time argument ("*i32", "i64"; "*i32:16" and "i32:16" say that the pointer or the
            number is a multiple of 16, which Triton finds out by itself at a launch), a value for each `tl.constexpr`.
        options: Launch options, e.g. num_warps, enable_fp_fusion.
    """

    module: str
    kernel: str
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


def ones(case: Case) -> Case:
    """The case with each integer 1, which Triton makes a constant at a launch and the interpreter does not."""
    numbers = {"i32", "i64", "i32:16", "i64:16"}
    arguments = {k: 1 if v in numbers else v for k, v in case.arguments.items()}
    return Case(case.module, case.kernel, arguments, case.options)


@dataclass(frozen=True)
class Built:
    """One case compiled for one architecture.

    Attributes:
        kernel: The case's kernel.
        architecture: Compute capability, 90 for 9.0.
        registers: Per thread.
        stack: Bytes of local memory per thread, where registers spill to and arrays live.
        shared: Bytes of shared memory per program.
        ptx: What Triton wrote.
        sass: What ptxas made of it.
    """

    kernel: str
    architecture: int
    registers: int
    stack: int
    shared: int
    ptx: str
    sass: str

    @property
    def load_bits(self) -> dict[int, int]:
        """Width of a lane's load from global memory -> how many such loads the PTX holds."""
        loads = _VECTOR_LOAD.findall(self.ptx)
        return dict(Counter(int(lanes or 1) * int(bits) for lanes, bits in loads))

    @property
    def local_accesses(self) -> int:
        """Loads and stores of local memory."""
        return len(re.findall(r"\b(?:LDL|STL)\b", self.sass))

    @property
    def popcounts(self) -> int:
        """Population counts."""
        return len(re.findall(r"\bPOPC\b", self.sass))

    @property
    def fused(self) -> int:
        """Multiplications fused with an addition, rounded once: of fp32, or a pair of fp32."""
        in_ptx = re.findall(r"\bfma\.r[nzmp]\S*\.f32", self.ptx)
        return len(in_ptx) + len(re.findall(r"\bFFMA2?\b", self.sass))

    def __str__(self) -> str:
        return (
            f"{self.kernel} sm_{self.architecture}: {self.registers} registers, {self.stack} B stack, "
            f"{self.local_accesses} local accesses, {self.shared} B shared, loads by bits {self.load_bits}, "
            f"{self.popcounts} popc, {self.fused} fused"
        )


def build(cases: Sequence[Case], architectures: Sequence[int] = ARCHITECTURES) -> list[Built]:
    """Compile each case for each architecture, cases outermost."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    job = json.dumps({"cases": [asdict(c) for c in cases], "architectures": list(architectures)})
    done = subprocess.run(
        [sys.executable, __file__],
        input=job,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ahead-of-time compilation failed:\n{done.stderr}")
    return [Built(**entry) for entry in json.loads(done.stdout)]


def _compile(case: Case, architecture: int) -> Built:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(case.module), case.kernel)
    if missing := set(kernel.arg_names) ^ set(case.arguments):
        raise ValueError(f"{case.kernel}: {sorted(missing)} on one side only")
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for position, name in enumerate(kernel.arg_names):
        value = case.arguments[name]
        if not isinstance(value, str):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name], _, multiple = value.partition(":")
        if multiple:
            attributes[(position,)] = [["tt.divisibility", int(multiple)]]
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", architecture, 32),
        options=dict(case.options),
    )
    usage = _cuobjdump("--dump-resource-usage", compiled.asm["cubin"])
    numbers = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    return Built(
        case.kernel,
        architecture,
        numbers["REG"],
        numbers["STACK"] + numbers["LOCAL"],
        compiled.metadata.shared,
        compiled.asm["ptx"],
        _cuobjdump("--dump-sass", compiled.asm["cubin"]),
    )


def _cuobjdump(what: str, cubin: bytes) -> str:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        return subprocess.run(
            [knobs.nvidia.cuobjdump.path, what, file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def _main() -> None:
    job = json.load(sys.stdin)
    cases = [Case(**case) for case in job["cases"]]
    built = [asdict(_compile(case, a)) for case in cases for a in job["architectures"]]
    sys.stdout.write(json.dumps(built))


if __name__ == "__main__":
    _main()
