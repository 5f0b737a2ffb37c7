// decode.json and known_answers.json as types: what their schemas say, as far as a client reads it.

export type DType = "float32" | "float16" | "int64" | "int32";
export interface TensorSpec { name: string; dtype: DType; shape: (number | string)[] }
export interface FileSpec {
  sha256: string; max_trace_len: number | null;
  inputs: TensorSpec[]; outputs: TensorSpec[];
  step?: string | null; scores?: "logits" | "log_probs";
}
export interface Decision { writes: boolean; keeps_state: boolean; moves_frames: number }
export interface Spelling { label: number; letters: string; starts: boolean }
export interface Specification {
  schema: number; checkpoint_sha256: string;
  points: { lowest: number; highest: number; fewest: number };
  features: {
    channels: string[]; key_centres: Record<string, [string, string]>;
    nearest_keys: number; window_points: number; min_dt_s: number;
  };
  labels: string[]; spellings: Spelling[];
  blank_id: number; start_symbol: number; vocab_size: number;
  dimensions: { d_model: number; pred_layers: number; pred_hidden: number };
  greedy: { max_symbols: number | null } & Record<"blank" | "label" | "label_at_max_symbols", Decision>;
  lexicon_search: {
    beam: number; threshold_nats: number; prior_weight: number; max_symbols: number; top: number;
    words: { file: string; sha256: string };
  };
  session_options: { onnx: { intra_op_threads: number } };
  files: Record<string, FileSpec>;
}

/** x and y in keyboard units, t in milliseconds. */
export type Point = [x: number, y: number, t: number];
export interface Word { text: string; tokens: number[]; score: number; log_prob: number }
export interface StepCall { frame: number; y_prev: number; logits: ArrayLike<number> }
export interface Decoded {
  steps: StepCall[]; tokens: number[]; frames: number[]; text: string; score: number;
}
export interface Answer extends Decoded { encoded: number[][]; words: Word[] }
export interface Pair {
  encoder: string; step: string; answers: Answer[];
  tolerances: { encoded: number; logits: number; score: number };
}
export interface KnownAnswers {
  checkpoint_sha256: string; feature_tolerance: number;
  swipes: { word: string; points: Point[]; features: number[][] }[]; pairs: Pair[];
}
