"""Code for processors that can do less than this one: what it computes is tried when it is compiled."""

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from charrnn.compiler.processor import LEVELS, VARIABLE, Processor
from charrnn.compiler.products import Form
from charrnn.errors import CharRNNError

ROOT = Path(__file__).parent.parent
HERE = {name for name, on in llvm.get_host_cpu_features().items() if on}
# In training, with the loop beside it, and then completing. What is wrong is a warning, or an error.
PROGRAM = """
import sys
import numpy as np, torch
from charrnn.compiler.processor import processor
from charrnn.generate.compiled import CompiledDecoder
from charrnn.generate.decoder import Decoder
from charrnn.generate.rows import RowsDecoder
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN

vector_bytes, cells, kept = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split()
assert processor().limited
assert processor().vector_bytes == vector_bytes
ids = torch.arange(60).view(6, 10) % 9
for cell in cells:
    architecture = Architecture(cell, 9, 21, 2, 5)
    weights = architecture.initial(seed=3)
    for bf16 in (False, True):
        found = []
        for engine in ("native", "loop"):
            model = CharRNN(architecture, weights, engine)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits, _ = model(ids, model.start(10))
            logits.float().square().sum().backward()
            found.append([logits.detach().float(), *(w.grad for w in model.weights.values())])
        for a, b in zip(*found, strict=True):
            assert (a - b).norm() <= (0.1 if bf16 else 1e-4) * b.norm() + 1e-6, (cell, bf16)
for dtype in kept:
    decoder, exact = CompiledDecoder(architecture, weights, dtype), Decoder(architecture, weights, "numpy")
    a, b = (d.step(np.array([3]), d.start())[0] for d in (decoder, exact))
    assert np.linalg.norm(a - b) <= (1e-5 if dtype == "float32" else 0.1) * np.linalg.norm(b), dtype
    RowsDecoder(decoder)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "vector_bytes", "kept"),
    [("x86-64-v2", 16, "int8"), ("x86-64-v3", 32, ""), ("x86-64-v4", 64, "")],  # the others complete as any test does
)
def test_code_for_a_level_of_processors_computes_what_the_equations_say(
    level: str, vector_bytes: int, kept: str, tmp_path: Path
) -> None:
    """Without AVX there is no fused product and sum, and vectors are of 16 bytes."""
    if not LEVELS[level] & set(llvm.get_host_cpu_features()) <= HERE:
        pytest.skip(f"this processor is not of level {level}")
    environment = {**os.environ, VARIABLE: level, "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    line = [sys.executable, "-W", "error", "-c", PROGRAM, str(vector_bytes), "lstm,layernorm-lstm", kept]
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level", ["x86-64-v9", "neon"])
def test_a_level_that_this_processor_has_not_is_refused(level: str) -> None:
    program = "from charrnn.compiler.processor import processor; processor()"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, VARIABLE: level}, cwd=ROOT, capture_output=True, text=True
    )
    assert f"{CharRNNError.__name__}: {VARIABLE} is {level!r}" in done.stderr


def test_what_a_processor_can_do_follows_from_its_features() -> None:
    wide = Processor("wide", dict.fromkeys(("sse2", "avx", "fma", "avx512f", "avx512bf16"), True))
    old, arm = Processor("old", {"sse2": True, "avx": False}), Processor("arm", {"neon": True})
    assert (wide.vector_bytes, wide.registers, wide.fuses, wide.multiplies_bf16) == (64, 32, True, True)
    assert (old.vector_bytes, old.registers, old.fuses, old.multiplies_bf16) == (16, 16, False, False)
    assert (arm.vector_bytes, arm.fuses) == (16, True)
    tiles = Processor("tiles", wide.features | dict.fromkeys(("amx-tile", "amx-bf16"), True))
    assert (tiles.multiplies_tiles, wide.multiplies_tiles, arm.multiplies_tiles) == (True, False, False)
    assert old.enabled == "-avx,+sse2"


AVX512 = "sse2 avx avx2 fma avx512f avx512bw avx512vl"
# Of processors that need not be here: as LLVM names them, and the instruction that each product must be made of.
OTHERS = {
    "x86-64": ("x86_64", "sse2", {"float32": "mulps", "pairs": "mulps", "bf16": "mulps", "int8": "pmaddwd"}),
    "haswell": ("x86_64", "sse2 avx avx2 fma", {"float32": "vfmadd", "pairs": "vfmadd", "int8": "vpmaddwd"}),
    "skylake-avx512": ("x86_64", AVX512, {"float32": "vfmadd", "pairs": "vfmadd", "int8": "vpmaddwd"}),
    "sapphirerapids": (
        *("x86_64", f"{AVX512} avx512vnni avx512bf16"),
        {"float32": "vfmadd", "pairs": "vdpbf16ps", "bf16": "vfmadd", "int8": "vpdpwssd"},
    ),
    "graniterapids": ("x86_64", f"{AVX512} avx512bf16 amx-tile amx-bf16", {"pairs": "tdpbf16ps", "bf16": "vfmadd"}),
    "generic": ("aarch64", "neon", {"float32": "fmla", "float64": "fmla", "pairs": "fmla", "bf16": "fmla"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_products_of_other_processors_are_their_own_instructions(name: str) -> None:
    architecture, features, instructions = OTHERS[name]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    processor, triple = Processor(name, dict.fromkeys(features.split(), True)), f"{architecture}-unknown-linux-gnu"
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=name, features=",".join(f"+{feature}" for feature in features.split()), opt=2, codemodel="default"
    )
    for kind, instruction in instructions.items():
        module = ir.Module()
        module.triple = triple
        registers = 4 if processor.multiplies_tiles else 2
        Form(kind, registers, (6, 2, 1), processor=processor).emit(module).linkage = "external"
        code = machine.emit_assembly(llvm.parse_assembly(str(module)))
        assert re.search(rf"\b{instruction}", code), kind
        called = re.findall(r"\t(?:callq?|bl)\t(\S+)", code)
        assert called, kind
        assert all(function.startswith("product.") for function in called), (kind, called)
