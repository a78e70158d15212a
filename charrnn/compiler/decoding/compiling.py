"""A function's source made into machine code that stands alone."""

from typing import Any

from charrnn.compiler.processor import processor
from charrnn.errors import CharRNNError

FLAGS: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}


def compile_source(text: str, function: str, signature: tuple[str, ...]) -> tuple[str, bytes]:
    """Return the symbol and the object code of a function that `text` defines and that returns int64.

    signature: for each parameter the name of a dtype, with * for its address. Raises CharRNNError where Numba cannot.
    """
    from numba import njit, types
    from numba.core import config as numba_config
    from numba.core.errors import NumbaError

    if processor().limited:  # else it takes the one that runs this
        config: Any = numba_config
        config.CPU_NAME, config.CPU_FEATURES = processor().name, processor().enabled

    pointer: Any = types.CPointer

    def kind(name: str) -> Any:
        return pointer(getattr(types, name[:-1])) if name.endswith("*") else getattr(types, name)

    names: dict[str, Any] = {"__name__": "charrnn_native"}
    exec(compile(text, "<charrnn>", "exec"), names)
    options = {**FLAGS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    try:
        compiled = njit(types.int64(*map(kind, signature)), **options)(names[function])
    except NumbaError as error:
        raise CharRNNError(f"Numba cannot compile this: {error}", "report it with the cell's source") from error
    result = compiled.overloads[compiled.signatures[0]]
    return result.fndesc.llvm_func_name, result.library._get_compiled_object()
