"""The networks written down as ONNX graphs: waveform in, frame features and frame logits out, any length.

Written node by node from the checkpoint's tensors, not traced: every shape follows the input, and nothing but ``onnx``
is needed. Opset 17 (LayerNormalization) is read by onnxruntime >= 1.14 and TensorRT >= 8.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emotion_app.types import Floats

OPSET = 17
IR_VERSION = 9
EXACT = "exact_"  # in front of the names of nodes that are never quantised
Array = NDArray[Any]


class Graph:
    """A graph under construction; names of values are strings, as ONNX has them.

    Args:
        half: matrix products and convolutions in fp16 (weights stored so); the rest stays fp32.
    """

    def __init__(self, half: bool = False) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._half = half

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its one output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Array | float | list[int]) -> str:
        """A constant: float32 unless the array is of whole numbers or fp16; small equal ones are shared."""
        array = np.asarray(value)
        if array.dtype.kind == "f" and array.dtype != np.float16:
            array = array.astype(np.float32)
        elif array.dtype.kind in "iu":
            array = array.astype(np.int64)
        key = (str(array.dtype), array.shape, array.tobytes()) if array.size <= 16 else None
        if key in self._known:
            return self._known[key]
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array.copy(order="C"), name))
        if key:
            self._known[key] = name
        return name

    def linear(self, x: str, weight: Floats, bias: Floats | None, exact: bool = False) -> str:
        """``x @ weight.T + bias``; ``exact`` keeps it in fp32, whatever the file's precision."""
        half = self._half and not exact
        product = self.op("MatMul", self._down(x, half), self.constant(self._stored(weight.T, half)))
        if exact:
            self._nodes[-1].name = f"{EXACT}{product}"
        product = self._up(product, half)
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def conv(self, x: str, weight: Floats, bias: Floats | None = None, **attributes: Any) -> str:
        """1-D convolution over (1, C, L)."""
        inputs = [self._down(x, self._half), self.constant(self._stored(weight, self._half))]
        y = self._up(self.op("Conv", *inputs, **attributes), self._half)
        return y if bias is None else self.op("Add", y, self.constant(bias[:, None]))

    def norm(self, x: str, gain: Floats | int, shift: Floats | None = None, eps: float = 1e-5) -> str:
        """Layer norm over the last axis; ``gain`` may be its width alone, for one without gain."""
        weight = np.ones(gain, np.float32) if isinstance(gain, int) else gain
        inputs = [x, self.constant(weight), *([] if shift is None else [self.constant(shift)])]
        return self.op("LayerNormalization", *inputs, axis=-1, epsilon=eps)

    def gelu(self, x: str) -> str:
        """The exact GELU; onnxruntime fuses these five nodes into one."""
        inner = self.op("Add", self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2.0)))), self.constant(1.0))
        return self.op("Mul", self.op("Mul", x, inner), self.constant(0.5))

    def swap(self, x: str) -> str:
        """(1, A, B) -> (1, B, A)."""
        return self.op("Transpose", x, perm=[0, 2, 1])

    def size(self, x: str, axis: int) -> str:
        """Length of an axis, as (1,) whole number."""
        return self.op("Gather", self.op("Shape", x), self.constant([axis]), axis=0)

    def model(self, outputs: Mapping[str, tuple[str, int]], facts: Mapping[str, str]) -> onnx.ModelProto:
        """Finish: ``outputs`` maps a name to (value, width) of a (T, width) array; ``facts`` go into the metadata.

        Inputs are ``waveform`` (n,) float32 at 16 kHz and ``normalize``, a scalar that is 1 when it is not given.
        """
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        inputs = [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["samples"]),
            helper.make_tensor_value_info("normalize", TensorProto.FLOAT, []),
        ]
        answers = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["frames", w]) for n, (_, w) in outputs.items()]
        default = numpy_helper.from_array(np.array(1.0, dtype=np.float32), "normalize")
        graph = helper.make_graph(self._nodes, "emotion", inputs, answers, [*self._constants, default])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "emotion-app"
        for key, fact in facts.items():
            model.metadata_props.add(key=key, value=fact)
        return model

    def choose(self, when_one: str, when_zero: str) -> str:
        """``when_one`` if ``normalize`` is 1, ``when_zero`` if it is 0."""
        flag = self.op("Greater", "normalize", self.constant(0.5))
        return self.op("Where", flag, when_one, when_zero)

    def _stored(self, weight: Floats, half: bool) -> Array:
        return weight.astype(np.float16) if half else weight

    def _down(self, x: str, half: bool) -> str:
        return self.op("Cast", x, to=TensorProto.FLOAT16) if half else x

    def _up(self, x: str, half: bool) -> str:
        return self.op("Cast", x, to=TensorProto.FLOAT) if half else x
