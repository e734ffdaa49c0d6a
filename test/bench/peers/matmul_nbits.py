"""The q4 products of the 0.5B shape as ONNX graphs of MatMulNBits, for test/bench/webgpu.ts.

python matmul_nbits.py FOLDER   (onnx, numpy from PyPI); FOLDER has onnxruntime-node: npm install --ignore-scripts onnxruntime-node
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = sys.argv[1]
random = np.random.default_rng(0)
for columns, inner in [(896, 896), (4864, 896), (896, 4864), (151936, 896)]:
    for rows in (1, 64):
        if rows > 1 and columns > 100_000:
            continue
        # Several in one graph, so that the run's own cost does not count; a sum comes back.
        repeat = 4 if columns < 100_000 else 1
        weights = random.integers(0, 256, (columns, inner // 32, 16), dtype=np.uint8)
        scales = np.full(columns * (inner // 32), 0.01, np.float32)
        outputs = [f"y{i}" for i in range(repeat)]
        size = {"K": inner, "N": columns, "bits": 4, "block_size": 32}
        nodes = [helper.make_node("MatMulNBits", ["x", "w", "s"], [y], domain="com.microsoft", **size) for y in outputs]
        nodes += [helper.make_node("Sum", outputs, ["all"]), helper.make_node("ReduceSum", ["all"], ["y"], keepdims=0)]
        graph = helper.make_graph(
            nodes,
            "products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
            [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "s")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), f"{folder}/{rows}x{columns}x{inner}.onnx")
