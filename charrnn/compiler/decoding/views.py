"""Arrays from addresses, and calls to addresses: with them compiled code stands alone, without Numba's run time."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


@intrinsic
def vector(context, data, n):
    """Return an array (n,) over the memory that a pointer leads to, which stays its owner's."""
    return types.Array(data.dtype, 1, "C")(data, n), _view


@intrinsic
def matrix(context, data, n, m):
    """Return an array (n, m), row after row, over the memory that a pointer leads to."""
    return types.Array(data.dtype, 2, "C")(data, n, m), _view


@intrinsic
def is_nowhere(context, data):
    """Tell whether a pointer leads nowhere."""

    def generate(context, builder, signature, arguments):
        at = builder.ptrtoint(arguments[0], ir.IntType(64))
        return builder.icmp_unsigned("==", at, ir.Constant(ir.IntType(64), 0))

    return types.boolean(data), generate


def _view(context, builder, signature, arguments):
    kind = signature.return_type
    array = make_array(kind)(context, builder)
    shape = [context.cast(builder, n, t, types.intp) for n, t in zip(arguments[1:], signature.args[1:], strict=True)]
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [size] if kind.ndim == 1 else [builder.mul(shape[1], size), size]
    data = builder.bitcast(arguments[0], array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic
def draw_at(context, address, logits, n, allowed, filters, u, numbers, order, cost):
    """Call the compiled `charrnn.compiler.decoding.draw.draw`, which is somewhere else in memory."""
    signature = types.int64(address, logits, n, allowed, filters, u, numbers, order, cost)

    def generate(context, builder, signature, arguments):
        values = [context.get_value_type(t) for t in signature.args[1:]]
        result = cgutils.alloca_once(builder, ir.IntType(64))
        trouble = cgutils.alloca_once(builder, cgutils.voidptr_t)
        kind = ir.FunctionType(ir.IntType(32), [result.type, trouble.type, *values])
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(function, [result, trouble, *arguments[1:]])
        return builder.load(result)

    return signature, generate
