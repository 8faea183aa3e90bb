"""Compile Triton kernels ahead of time, without a GPU: cases in, what ptxas made of them out.

`build` runs this file as a program of its own, because Triton decides at import whether it interprets or compiles.
Tests ask for the fixture `compiled`, which builds the `CASES` of all their modules in one such program.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities of A100, H100 and H200, B200."""

ONES_ARCHITECTURE = 90
"""Where cases with each integer 1 are compiled: whether Triton accepts them is the same everywhere."""

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
        sass: What ptxas made of it; empty where a case has its integers 1.
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


Compiled = Callable[..., list[Built]]
"""Looks up what was built for some cases, for each architecture given, cases outermost."""


def build(cases: Sequence[Case]) -> str:
    """Compile each case for each architecture, and each with its integers 1 for one; JSON of what `load` reads."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(case) for case in cases]),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ahead-of-time compilation failed:\n{done.stderr}")
    return done.stdout


def load(built: str) -> Compiled:
    """What `build` returned, to be looked up."""
    kernels = {key: Built(**entry) for key, entry in json.loads(built).items()}

    def compiled(
        cases: Sequence[Case], architectures: Sequence[int] = ARCHITECTURES
    ) -> list[Built]:
        return [kernels[_key(case, a)] for case in cases for a in architectures]

    return compiled


def _key(case: Case, architecture: int) -> str:
    return json.dumps([asdict(case), architecture], sort_keys=True)


def _compile(case: Case, architecture: int, *, disassemble: bool) -> Built:
    import triton
    from triton import knobs
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
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
        sass = _output(knobs.nvidia.nvdisasm.path, "--print-code", file.name) if disassemble else ""
    numbers = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    return Built(
        case.kernel,
        architecture,
        numbers["REG"],
        numbers["STACK"] + numbers["LOCAL"],
        compiled.metadata.shared,
        compiled.asm["ptx"],
        sass,
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _main() -> None:
    cases = [Case(**case) for case in json.load(sys.stdin)]
    built = {
        _key(case, architecture): asdict(_compile(case, architecture, disassemble=True))
        for case in cases
        for architecture in ARCHITECTURES
    }
    for case in map(ones, cases):
        key = _key(case, ONES_ARCHITECTURE)
        if key not in built:
            # That it compiles is all that is asked, and disassembling takes longer than compiling.
            built[key] = asdict(_compile(case, ONES_ARCHITECTURE, disassemble=False))
    sys.stdout.write(json.dumps(built))


if __name__ == "__main__":
    _main()
