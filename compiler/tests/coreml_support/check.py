"""Has Apple's coremltools read a package: python check.py NAME.mlpackage

The specification is loaded, every operation is built again as coremltools builds its own, which infers its type from its inputs and
refuses what Core ML would refuse, and the types are compared with those that are written down. Prints JSON: the kinds of operations
but constants, in order, and the number of halves that were read.
"""

import json
import os
import sys

import coremltools as ct
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.frontend.milproto.helper import proto_to_types
from coremltools.converters.mil.mil import types


def main(package):
    spec = ct.models.utils.load_spec(package)
    weights = os.path.join(package, "Data", "com.apple.CoreML", "weights")
    program = milproto.load(spec, spec.specificationVersion, file_weights_dir=weights)
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    declared = {out.name: proto_to_types(out.type) for op in block.operations for out in op.outputs}
    kinds, halves = [], 0
    for op in program.functions["main"].operations:
        if op.op_type == "const":
            value = op.outputs[0].val
            halves += value.size if getattr(value, "dtype", None) == "float16" else 0
            continue
        kinds.append(op.op_type)
        for out in op.outputs:
            expected = declared[out.name]
            found = out.sym_type
            if types.is_tensor(found) != types.is_tensor(expected) or not types.is_tensor(found):
                sys.exit(f"{out.name}: {found}, written {expected}")
            same = found.get_primitive() == expected.get_primitive() and found.get_shape() == expected.get_shape()
            if not same:
                sys.exit(f"{out.name}: {found.get_primitive()} {found.get_shape()}, written {expected.get_shape()}")
    print(json.dumps({"kinds": kinds, "halves": halves, "version": ct.__version__}))


if __name__ == "__main__":
    main(sys.argv[1])
