"""LLVM source made into machine code."""

from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

from charrnn.compiler import cache
from charrnn.compiler.processor import processor


def new_module() -> ir.Module:
    """Return an empty module for this machine."""
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    return module


def compiled(source: str) -> cache.Code:
    """Return a module's code; layers that differ in what it does not depend on share it."""
    made_by = Path(__file__).read_text(encoding="utf-8")  # this module chooses the passes
    return cache.code(source, made_by, lambda: object_code(source))


def object_code(source: str) -> bytes:
    """Compile a module for this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(source)
    enabled = processor().enabled + (",-prefer-256-bit" if processor().vector_bytes == 64 else "")
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=processor().name, features=enabled, opt=2, jit=True
    )
    # The code has its vectors and tiles already: addresses out of loops is all it needs.
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_new_gvn_pass()
    passes.add_loop_rotate_pass()
    passes.add_instruction_combine_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(module)
    return code
