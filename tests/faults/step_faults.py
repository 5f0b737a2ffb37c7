"""Faults of ONNX steps, and of those who decode with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.faults import client_faults
from tests.faults.encoder_faults import perturbed_one
from tests.faults.fault import Fault
from tests.faults.graph_edits import (
    add_constant,
    after_input,
    before_output,
    change_constant,
    constant,
    operate,
    put,
    redeclare,
    rename,
    scale_part,
    swap_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext
    from tests.faults.run import Workspace

FP32, INT8 = "step_fp32.onnx", "step_int8.onnx"
FLOAT = TensorProto.FLOAT
SYMBOLS, HIDDEN = 30, 96


def fp32(name: str, row: int | None, what: str, gate: str, *changes: Any, **claims: Any) -> Fault:
    return Fault(name, row, what, (FP32,), f"{FP32} {gate}", operate(FP32, *changes, **claims))


def int8(name: str, row: int | None, what: str, gate: str, *changes: Any) -> Fault:
    return Fault(name, row, what, (INT8,), f"{INT8} {gate}", operate(INT8, *changes))


def blank_favoured(nats: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change that adds to the blank's logit in the INT8 step, through its bias."""

    def apply(model: onnx.ModelProto) -> None:
        # What the bias is added to is multiplied by each label's share.
        share = numpy_helper.to_array(constant(model, "joint.out.shares"))[-1]
        change_constant(
            "joint.out.bias", lambda b: b + np.eye(1, len(b), len(b) - 1)[0] * nats / share
        )(model)

    return apply


def blank_first(model: onnx.ModelProto) -> None:
    """Put the blank at 0: in the logits and in the symbols that are fed."""
    rolled = np.roll(np.arange(SYMBOLS), 1)
    add_constant(model, "blank_first", rolled)
    before_output("logits", "Gather", "blank_first", axis=1)(model)
    add_constant(model, "after_blank", rolled)
    for node in model.graph.node:
        node.input[:] = ["y_mapped" if name == "y_prev" else name for name in node.input]
    model.graph.node.insert(
        0, onnx.helper.make_node("Gather", ["after_blank", "y_prev"], ["y_mapped"], axis=0)
    )


def states_batch_first(model: onnx.ModelProto) -> None:
    """Pack the states as (N, L, H)."""
    for name in ("h0", "c0"):
        after_input(name, "Transpose", perm=[1, 0, 2])(model)
    for name in ("h1", "c1"):
        before_output(name, "Transpose", perm=[1, 0, 2])(model)
    for name in ("h0", "c0", "h1", "c1"):
        redeclare(name, FLOAT, ["B", 1, HIDDEN])(model)


def log_softmax(model: onnx.ModelProto) -> None:
    before_output("logits", "LogSoftmax", axis=1)(model)


def decoder(
    decode: Callable[..., Any],
) -> Callable[[Workspace], None]:
    """Return an injection of another decoder."""

    def inject(workspace: Workspace) -> None:
        workspace.change = lambda context: setattr(context.words, "decode", decode)

    return inject


def weights_dropped(workspace: Workspace) -> None:
    def change(context: RunContext) -> None:
        context.nemo.load = client_faults.load_dropping_weights

    workspace.change, workspace.share_reference = change, False


GATES = [0, 3, 2, 1]
"""The step's order is input, forget, output, cell."""


def permuted_gates(value: np.ndarray) -> np.ndarray:
    """Exchange forget and cell gates along the last axis."""
    parts = np.split(value, 4, axis=-1)
    return np.concatenate([parts[index] for index in GATES], axis=-1)


def recurrent_permuted(model: onnx.ModelProto) -> None:
    name = next(t.name for t in model.graph.initializer if list(t.dims) == [HIDDEN, 4 * HIDDEN])
    change_constant(name, permuted_gates)(model)
    change_constant("prediction.table.weight", permuted_gates)(model)


def blank_row(value: np.ndarray) -> np.ndarray:
    value[-1] = value[0]
    return value


STEP_FAULTS = (
    fp32("blank at 0", 1, "taken from a labels file", "token_mismatches_max", blank_first,
         blank_id=0),
    fp32("blank at 0 in the sidecar", 1, "the file is right, what it says is not",
         "provenance_mismatches_max", before_output("logits", "Identity"), blank_id=0),
    fp32("SOS is a label", 2, "the blank's embedding is the first label's", "max_error_ratio_max",
         change_constant("prediction.table.weight", blank_row)),
    Fault("decoding starts with a label", 2, "the decoder feeds 0 first", (FP32,),
          f"{FP32} score_max_abs_error_max", decoder(client_faults.decode_from_label)),
    Fault("state advanced on blank", 3, "state and symbol are kept also after a blank", (FP32,),
          f"{FP32} token_mismatches_max", decoder(client_faults.decode_advancing_on_blank)),
    fp32("logits (B,1,1,V)", 5, "as the joint gives them", "contract_mismatches_max",
         put("axes", np.array([1, 2])), before_output("logits", "Unsqueeze", "axes"),
         redeclare("logits", FLOAT, ["B", 1, 1, SYMBOLS])),
    fp32("log-probabilities", 6, "under the name of logits", "normalised_logits_max", log_softmax),
    Fault("weights dropped on load", 7, "decoder and joint stay random", (FP32,),
          "checkpoint differing_tensors_max", weights_dropped, also="decoder.prediction"),
    fp32("h and c exchanged", 18, "on the way in", "state_max_error_ratio_max",
         swap_names("h0", "c0")),
    fp32("h1 and c1 exchanged", 18, "on the way out", "state_max_error_ratio_max",
         swap_names("h1", "c1")),
    fp32("states (N,L,H)", 18, "batch first", "contract_mismatches_max", states_batch_first),
    fp32("state not returned", 18, "h1 is h0: every step starts anew", "state_max_error_ratio_max",
         rename("h1", "unused"), lambda model: model.graph.node.append(
             onnx.helper.make_node("Identity", ["h0"], ["h1"])) and None,
         lambda model: setattr(model.graph.output[1], "name", "h1")),
    fp32("LSTM gates permuted", None, "forget and cell exchanged", "max_error_ratio_max",
         recurrent_permuted),
    fp32("logits scaled by 1.001", None, "a temperature: words stay", "max_error_ratio_max",
         put("factor", np.array(1.001, np.float32)), before_output("logits", "Mul", "factor")),
    fp32("one weight of the joint 1 % off", 22, "the largest", "max_error_ratio_max",
         change_constant("joint.enc.weight", lambda w: perturbed_one(w, 0.01))),
    fp32("joint without its activation", None, "ReLU left out", "max_error_ratio_max",
         lambda model: setattr(next(n for n in model.graph.node if n.op_type == "Relu"),
                               "op_type", "Identity")),
    fp32("NaN for one symbol", None, "the logit of one label", "nonfinite_max",
         change_constant("joint.out.bias", lambda b: np.where(np.arange(len(b)) == 3, np.nan, b))),
    int8("INT8 step: one scale 20 % off", 22, "a row of the joint's output", "sqnr_db_min",
         scale_part("joint.out.shares", 4, 1.2)),
    int8("INT8 step: blank favoured", 22, "the blank's bias is 1 nat off",
         "symbol_noise_p_min", blank_favoured(1.0)),
    int8("INT8 step: blank favoured a little", None, "the blank's bias is 0.02 nats off",
         "constant_mismatches_max", blank_favoured(0.02)),
)  # fmt: skip

__all__ = ["STEP_FAULTS"]
