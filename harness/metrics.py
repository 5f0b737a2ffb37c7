"""Every metric that a gate can name: its unit and what it tells, for reports and for users."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What becomes of a metric that has no value, or no limit.

    Attributes:
        GATED: A gate on it fails if it was not measured.
        OPTIONAL: What counts it may be absent: an emulator that is not part of the installation, or
            the exporter of a third-party file. Its gate then says NOT_MEASURED and why, and fails
            the run only for a release.
        COUNTED: Counted in every file, also where no gate is set on it.
        INFORMATIONAL: A clock's or a guest's number as it happens to be. No gate may be set on it,
            and a report shows it beside the gates.
    """

    GATED = "gated"
    OPTIONAL = "optional"
    COUNTED = "counted"
    INFORMATIONAL = "informational"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's unit and meaning.

    Attributes:
        unit: As printed after a value; empty for counts and ratios.
        meaning: One sentence for somebody who has not read the suites.
        role: Whether it can be left out.
    """

    unit: str
    meaning: str
    role: Role = Role.GATED

    def format(self, value: float) -> str:
        """Return a value as a reader writes it."""
        if not math.isfinite(value):
            text = str(value)
        elif value == int(value) and abs(value) < 1e9:
            text = str(int(value))
        elif abs(value) < 1e-2:
            text = f"{value:.2g}"
        else:
            text = f"{value:.4g}"
        return f"{text} {self.unit}".rstrip()


METRICS: dict[str, Metric] = {
    # load
    "missing_keys": Metric("", "parameters of the model that the checkpoint lacks"),
    "unexpected_keys": Metric("", "tensors of the checkpoint that the model lacks"),
    "differing_tensors": Metric("", "tensors that differ between the checkpoint and the model"),
    "blank_row_max_abs": Metric("", "largest magnitude in the blank's embedding row"),
    "reference_word_accuracy": Metric("", "share of words that NeMo itself decodes right"),
    "accuracy_over_chance": Metric(
        "", "lower 97.5 % bound of NeMo's word accuracy less the share of the commonest word"
    ),
    "recorded_token_mismatches": Metric("", "swipes that NeMo decodes otherwise than recorded"),
    "recorded_score_max_abs_error": Metric("nats", "largest change of NeMo's scores since then"),
    "recorded_accuracy_drop": Metric("", "recorded word accuracy less NeMo's now"),
    # what the manifest can show
    "swipes": Metric("", "swipes in the manifest"),
    "distinct_swipes": Metric("", "swipes that differ in word or trace"),
    "distinct_words": Metric("", "words in the manifest"),
    "shared_swipes": Metric("", "swipes of the manifest that also calibrated the files"),
    "unexercised_labels": Metric("", "labels of the vocabulary that no word of the manifest has"),
    # contract
    "contract_mismatches": Metric("", "names, dtypes and shapes that differ from the contract"),
    "sidecar_mismatches": Metric("", "statements of the sidecar's contract that are not implied"),
    "constant_mismatches": Metric(
        "", "numbers and nodes of a file that are not what the checkpoint says", Role.OPTIONAL
    ),
    "provenance_mismatches": Metric("", "statements of the sidecar that the checkpoint refutes"),
    "identical_files": Metric("", "other files of the release with the same bytes"),
    "unportable_ops": Metric("", "operators that exist on this kind of machine only"),
    "normalised_logits": Metric("", "share of logit rows that are log-probabilities"),
    # parity
    "max_abs_error": Metric("", "largest absolute difference from NeMo"),
    "max_error_ratio": Metric("", "largest difference from NeMo ÷ the outputs' RMS"),
    "state_max_error_ratio": Metric("", "largest difference of h and c from NeMo ÷ their RMS"),
    "worst_channel_sqnr_db": Metric("dB", "signal to noise of the output's worst channel"),
    "channel_noise_p": Metric("", "probability that one channel is so far from NeMo by chance"),
    "logit_shift": Metric("nats", "largest mean error of one symbol's logit beside the others'"),
    "sqnr_db": Metric("dB", "signal to noise against NeMo's FP32, over all swipes"),
    "worst_sqnr_db": Metric("dB", "signal to noise of the worst swipe"),
    "worst_bucket_sqnr_db": Metric("dB", "signal to noise of the worst length bucket"),
    "length_buckets": Metric("", "length buckets that hold swipes"),
    "low_cosine": Metric("", "cosine between a frame and NeMo's that 99 of 100 exceed"),
    "nonfinite": Metric("", "NaN and infinite values in the outputs"),
    "layer_gain_excess": Metric(
        "×", "largest wrong factor of a layer's channel ÷ what its rounding explains"
    ),
    "layer_shift_excess": Metric(
        "×", "largest wrong offset of a layer's channel ÷ what its rounding explains"
    ),
    "clip_noise_ratio": Metric(
        "×", "noise of values beyond a static range ÷ noise of rounding, largest of a quantizer"
    ),
    "unmatched_layers": Metric("", "layers of the FP32 file that this file lacks"),
    "encoded_length_mismatches": Metric("", "swipes whose encoded length differs from NeMo's"),
    "shape_failures": Metric("", "trace lengths from 1 to the bound that fail"),
    "length_noise_p": Metric("", "probability that one length is so far from NeMo by chance"),
    "overlong_accepted": Metric("", "traces longer than the bound that give no error"),
    "padding_noise_ratio": Metric("", "RMS change caused by padding ÷ the file's RMS error"),
    "batch_noise_ratio": Metric(
        "", "RMS change caused by other rows of a batch ÷ the file's RMS error"
    ),
    "unequal_repeats": Metric("", "outputs that differ between two runs of the same input"),
    "worst_label_sqnr_db": Metric("dB", "signal to noise after the symbol that is fed worst"),
    "label_noise_p": Metric("", "probability that outputs after one symbol are so far by chance"),
    "symbol_noise_p": Metric("", "probability that one symbol's logit is so far by chance"),
    "worst_symbol_sqnr_db": Metric("dB", "power of the logits ÷ error of the worst symbol's"),
    # decode
    "token_mismatches": Metric("", "swipes decoded otherwise than by NeMo, and no near tie"),
    "near_ties": Metric("", "swipes decoded otherwise where NeMo's margin is within the error"),
    "score_max_abs_error": Metric("nats", "largest difference of a score from NeMo's"),
    "word_accuracy": Metric("", "share of words decoded right"),
    "relative_word_accuracy": Metric("", "word accuracy ÷ NeMo's"),
    "emitted_length_ratio": Metric("", "mean number of labels emitted ÷ NeMo's"),
    "word_accuracy_loss": Metric("", "NeMo's word accuracy less this file's, greedy"),
    "words_lost_p": Metric("", "probability of losing so many words by chance (McNemar)"),
    "edits_p": Metric("", "probability of so many swipes with more wrong letters by chance"),
    "deletions_p": Metric("", "probability of so many swipes with more missing letters by chance"),
    "lexicon_top1_lost_p": Metric("", "the same of words that are first in the lexicon"),
    "lexicon_top5_lost_p": Metric("", "the same of words among the first 5 in the lexicon"),
    "top5_lost_p": Metric("", "the same of words among the first 5 of a free beam search"),
    "lexicon_search_p": Metric("", "the same of words that the lexicon loses against greedy"),
    "character_error_rate": Metric("", "edits from the words to what was emitted ÷ letters"),
    "deletion_rate": Metric("", "letters of the words that were not emitted ÷ letters"),
    "mean_emitted_length": Metric("", "mean number of letters emitted"),
    "top5_word_accuracy": Metric("", "share of words among the first 5 of a free beam search"),
    "top1_word_accuracy_lexicon": Metric("", "share of words found first in the lexicon"),
    "top5_word_accuracy_lexicon": Metric("", "share of words among the first 5 in the lexicon"),
    "lexicon_accuracy_loss": Metric("", "NeMo encodings' top-1 in the lexicon less this file's"),
    # quantization
    "int8_weight_share": Metric("", "share of the weights stored in 8 or fewer bits"),
    "int8_matrix_share": Metric("", "share of the matrices' weights stored in 8 or fewer bits"),
    "int4_weight_share": Metric("", "share of the matrices' weights stored in 4 bits"),
    "weight_bytes_ratio": Metric(
        "", "bytes of the matrices' weights ÷ what the checkpoint's need at the named precision"
    ),
    "saturating_pairs": Metric("", "pairs of s8 weights that saturate on an x86 without VNNI"),
    "quantize_ops": Metric("", "quantize operators in the file"),
    "dequantize_ops": Metric("", "dequantize operators in the file"),
    # delegation
    "delegated_node_ratio": Metric("", "share of graph nodes inside delegates", Role.OPTIONAL),
    "delegated_compute_ratio": Metric(
        "", "share of compute operators inside delegates", Role.OPTIONAL
    ),
    "delegated_mac_ratio": Metric("", "share of multiply-accumulates inside delegates"),
    "delegates": Metric("", "subgraphs handed to XNNPACK"),
    "undelegated_qdq_ops": Metric("", "quantize and dequantize operators outside delegates"),
    "unexpected_fallback_ops": Metric("", "operators outside delegates that are not allowed"),
    # kernels
    "integer_kernel_share": Metric(
        "", "share of the 8-bit products that ran in the core's best instructions for them"
    ),
    # size
    "size_bytes": Metric("bytes", "size of the file", Role.COUNTED),
    "deflated_bytes": Metric("bytes", "size of the file after deflate, level 6", Role.COUNTED),
    "brotli_bytes": Metric(
        "bytes", "size of the file after brotli, quality 9, for pages", Role.COUNTED
    ),
    "macs": Metric("", "multiply-accumulates of one inference on the longest input", Role.COUNTED),
    "int8_mac_share": Metric("", "share of the multiply-accumulates with 8-bit weights"),
    "int8_compute_share": Metric(
        "", "share of the matrices' weights that products take as integers"
    ),
    "weight_bytes": Metric("bytes", "bytes of weights in the file", Role.COUNTED),
    "nodes": Metric(
        "", "nodes that the runtime runs, those inside delegates included", Role.COUNTED
    ),
    "planned_memory_bytes": Metric(
        "bytes", "memory that a .pte plans for its activations", Role.COUNTED
    ),
    "size_ratio": Metric("", "size ÷ the FP32 file's"),
    # beside the released file
    "baseline_size_ratio": Metric("", "size ÷ the released file's"),
    "baseline_accuracy_drop": Metric("", "word accuracy lost since the released file"),
    "baseline_sqnr_drop_db": Metric("dB", "signal to noise lost since the released file"),
    "baseline_latency_ratio": Metric("", "proven ratio of processor time to the released file's"),
    "baseline_instruction_ratio": Metric(
        "", "instructions of an inference ÷ the released file's", Role.OPTIONAL
    ),
    "baseline_macs_ratio": Metric("", "multiply-accumulates ÷ the released file's"),
    "baseline_nodes_ratio": Metric("", "nodes that the runtime runs ÷ the released file's"),
    # latency
    "speedup": Metric("×", "FP32 file's CPU time ÷ this file's, paired in one run"),
    "proven_speedup": Metric("×", "speedup, or 1 where none and no loss is proven"),
    "latency_ms": Metric("ms", "median CPU time of one inference", Role.INFORMATIONAL),
    "latency_p50_ms": Metric("ms", "half of the runs take no longer", Role.INFORMATIONAL),
    "latency_p90_ms": Metric("ms", "90 % of the runs take no longer", Role.INFORMATIONAL),
    "latency_p99_ms": Metric("ms", "99 % of the runs take no longer", Role.INFORMATIONAL),
    "first_run_ms": Metric("ms", "first run after loading, median", Role.INFORMATIONAL),
    "load_ms": Metric("ms", "opening the file, median", Role.INFORMATIONAL),
    "peak_memory_bytes": Metric(
        "bytes", "memory that loading and running the file adds at most", Role.INFORMATIONAL
    ),
    "instructions": Metric("", "instructions of one short inference", Role.INFORMATIONAL),
}

RENAMED: dict[str, str] = {
    "pinned_token_mismatches": "recorded_token_mismatches",
    "pinned_score_max_abs_error": "recorded_score_max_abs_error",
    "close_calls": "near_ties",
}
"""Names that metrics had in histories of earlier versions."""
