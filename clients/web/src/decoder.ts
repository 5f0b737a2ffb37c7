// Encoder and step on ONNX Runtime Web: features to frames, frames to labels and words.

import type * as Ort from "onnxruntime-web";
import { type Lexicon, ROOT } from "./lexicon.ts";
import type { Decoded, FileSpec, Specification, StepCall, TensorSpec, Word } from "./specification.ts";

type Runtime = Pick<typeof Ort, "Tensor" | "InferenceSession">;

interface OpenFile { session: Ort.InferenceSession; file: FileSpec }
/** What the step is called with, beside a frame. */
interface State { last: number; hidden: Float32Array; cell: Float32Array }
/** A sequence of labels, and the state before its last one is fed. */
interface Hypothesis extends State { tokens: number[]; node: number; logProb: number; outlook: number }
interface Stepped { raw: Float32Array; logProbs: Float64Array; hidden: Float32Array; cell: Float32Array }

export class Decoder {
  constructor(
    private readonly ort: Runtime, private readonly spec: Specification,
    private readonly encoder: OpenFile, private readonly step: OpenFile,
    private readonly lexicon: Lexicon,
  ) {}

  /** Return the encoder's valid frames for rows of features. */
  async encode(rows: Float32Array[]): Promise<Float32Array[]> {
    const longest = this.encoder.file.max_trace_len ?? Infinity;
    if (rows.length > longest) throw new Error(`${rows.length} points, the file takes ${longest}`);
    const [features, lengths] = this.encoder.file.inputs;
    const channels = rows[0].length;
    const values = new Float32Array(channels * rows.length);
    rows.forEach((row, t) => row.forEach((value, c) => { values[c * rows.length + t] = value; }));
    const outputs = await this.encoder.session.run({
      [features.name]: this.tensor(features, values, [1, channels, rows.length]),
      [lengths.name]: this.tensor(lengths, [rows.length], [1]),
    });
    const [encoded, counts] = this.encoder.file.outputs.map((output) => outputs[output.name]);
    const [data, width] = [encoded.data as Float32Array, encoded.dims[2]];
    return Array.from({ length: Number(counts.data[0]) }, (_, t) => {
      const frame = new Float32Array(this.spec.dimensions.d_model);
      return frame.map((_, d) => data[d * width + t]);
    });
  }

  /** Decode frames without a lexicon. */
  async greedy(frames: Float32Array[]): Promise<Decoded> {
    const { spec } = this;
    const found = { steps: [] as StepCall[], tokens: [] as number[], frames: [] as number[], score: 0 };
    let [state, frame, written] = [this.start(), 0, 0];
    while (frame < frames.length) {
      const [out] = await this.run([state], frames[frame]);
      found.steps.push({ frame, y_prev: state.last, logits: out.raw });
      const label = out.raw.indexOf(Math.max(...out.raw));
      const full = written + 1 >= (spec.greedy.max_symbols ?? Infinity);
      const rule = label === spec.blank_id ? spec.greedy.blank
        : full ? spec.greedy.label_at_max_symbols : spec.greedy.label;
      if (rule.writes) {
        found.tokens.push(label);
        found.frames.push(frame);
        found.score += out.logProbs[label];
        state = { ...state, last: label };
        written++;
      }
      if (rule.keeps_state) state = { ...state, hidden: out.hidden, cell: out.cell };
      if (rule.moves_frames) written = 0;
      frame += rule.moves_frames;
    }
    return { ...found, text: this.text(found.tokens) };
  }

  /** Return the lexicon's best words for frames, best first. */
  async search(frames: Float32Array[]): Promise<Word[]> {
    const { top, prior_weight } = this.spec.lexicon_search;
    const outlook = prior_weight * this.lexicon.best[ROOT];
    let beam: Hypothesis[] = [{ ...this.start(), tokens: [], node: ROOT, logProb: 0, outlook }];
    for (const frame of frames) beam = this.merged(await this.closed(beam, frame));
    const words = new Map<number, { likeliest: Hypothesis; logProb: number }>();
    for (const item of beam) {
      if (this.lexicon.logPrior[item.node] === -Infinity) continue;
      const other = words.get(item.node);
      words.set(item.node, {
        likeliest: other && other.likeliest.logProb >= item.logProb ? other.likeliest : item,
        logProb: other ? logAdd(other.logProb, item.logProb) : item.logProb,
      });
    }
    return [...words].map(([node, { likeliest, logProb }]) => ({
      text: this.text(likeliest.tokens), tokens: likeliest.tokens, log_prob: logProb,
      score: logProb + prior_weight * this.lexicon.logPrior[node],
    })).sort((a, b) => b.score - a.score).slice(0, top);
  }

  /** Take a beam through one frame: rounds of labels, each hypothesis closed by a blank. */
  private async closed(start: Hypothesis[], frame: Float32Array): Promise<Hypothesis[]> {
    const { beam: width, max_symbols, threshold_nats, prior_weight } = this.spec.lexicon_search;
    const closed: Hypothesis[] = [];
    let [beam, best] = [start, -Infinity];
    for (let emitted = 0; beam.length; emitted++) {
      const out = await this.run(beam, frame);
      beam.forEach((item, row) => {
        const logProb = item.logProb + out[row].logProbs[this.spec.blank_id];
        closed.push({ ...item, logProb });
        best = Math.max(best, logProb + item.outlook);
      });
      if (emitted === max_symbols) break;
      const grown = beam.flatMap((item, row) =>
        this.lexicon.continuations(item.node, !item.tokens.length).map(({ label, node }) => ({
          item, row, label, node, logProb: item.logProb + out[row].logProbs[label],
          outlook: prior_weight * this.lexicon.best[node],
        })));
      const rank = (item: { logProb: number; outlook: number }) => item.logProb + item.outlook;
      const limit = grown.reduce((most, item) => Math.max(most, rank(item)), best) - threshold_nats;
      beam = grown.filter((item) => rank(item) >= limit).sort((a, b) => rank(b) - rank(a))
        .slice(0, width).map(({ item, row, label, node, logProb, outlook }) => ({
          tokens: [...item.tokens, label], node, last: label, logProb, outlook,
          hidden: out[row].hidden, cell: out[row].cell,
        }));
    }
    return closed;
  }

  /** Add up equal sequences of labels, whose states are equal too, and keep the best. */
  private merged(closed: Hypothesis[]): Hypothesis[] {
    const { beam, threshold_nats } = this.spec.lexicon_search;
    const sums = new Map<string, Hypothesis>();
    for (const item of closed) {
      const other = sums.get(item.tokens.join());
      const logProb = other ? logAdd(other.logProb, item.logProb) : item.logProb;
      sums.set(item.tokens.join(), { ...item, logProb });
    }
    const ranked = [...sums.values()].sort((a, b) => b.logProb + b.outlook - a.logProb - a.outlook);
    const limit = ranked[0].logProb + ranked[0].outlook - threshold_nats;
    return ranked.slice(0, beam).filter((item) => item.logProb + item.outlook >= limit);
  }

  /** Call the step, for as many states at once as the file takes. */
  private async run(states: State[], frame: Float32Array): Promise<Stepped[]> {
    const takes = this.step.file.inputs[0].shape[0];
    const size = typeof takes === "number" ? takes : states.length;
    const { pred_layers: layers, pred_hidden: width, d_model } = this.spec.dimensions;
    const found: Stepped[] = [];
    for (let first = 0; first < states.length; first += size) {
      const part = states.slice(first, first + size);
      const [labels, frames] = [new Array<number>(size).fill(0), new Float32Array(size * d_model)];
      const [hidden, cell] = [new Float32Array(layers * size * width), new Float32Array(layers * size * width)];
      part.forEach((state, row) => {
        labels[row] = state.last;
        frames.set(frame, row * d_model);
        for (let layer = 0; layer < layers; layer++) {
          const [from, to] = [layer * width, (layer * size + row) * width];
          hidden.set(state.hidden.subarray(from, from + width), to);
          cell.set(state.cell.subarray(from, from + width), to);
        }
      });
      const shape = [layers, size, width];
      const [y, h, c, e] = this.step.file.inputs;
      const outputs = await this.step.session.run({
        [y.name]: this.tensor(y, labels, [size]), [h.name]: this.tensor(h, hidden, shape),
        [c.name]: this.tensor(c, cell, shape), [e.name]: this.tensor(e, frames, [size, d_model]),
      });
      const [logits, h1, c1] = this.step.file.outputs.map((o) => outputs[o.name].data as Float32Array);
      const state = (all: Float32Array, row: number) => {
        const own = new Float32Array(layers * width);
        for (let layer = 0; layer < layers; layer++) {
          const from = (layer * size + row) * width;
          own.set(all.subarray(from, from + width), layer * width);
        }
        return own;
      };
      part.forEach((_, row) => {
        const raw = logits.slice(row * this.spec.vocab_size, (row + 1) * this.spec.vocab_size);
        found.push({ raw, logProbs: this.logProbs(raw), hidden: state(h1, row), cell: state(c1, row) });
      });
    }
    return found;
  }

  private logProbs(raw: Float32Array): Float64Array {
    const values = Float64Array.from(raw);
    if (this.step.file.scores === "log_probs") return values;
    let [highest, sum] = [-Infinity, 0];
    for (const value of values) highest = Math.max(highest, value);
    for (const value of values) sum += Math.exp(value - highest);
    for (let i = 0; i < values.length; i++) values[i] -= highest + Math.log(sum);
    return values;
  }

  private start(): State {
    const size = this.spec.dimensions.pred_layers * this.spec.dimensions.pred_hidden;
    return { last: this.spec.start_symbol, hidden: new Float32Array(size), cell: new Float32Array(size) };
  }

  private text(tokens: number[]): string {
    return tokens.map((token) => this.spec.labels[token]).join("").replaceAll("▁", " ").trim();
  }

  private tensor(spec: TensorSpec, values: ArrayLike<number>, dims: number[]): Ort.Tensor {
    if (values instanceof Float32Array) return new this.ort.Tensor("float32", values, dims);
    if (spec.dtype === "int32") return new this.ort.Tensor("int32", Int32Array.from(values), dims);
    return new this.ort.Tensor("int64", BigInt64Array.from(Array.from(values, BigInt)), dims);
  }
}

function logAdd(a: number, b: number): number {
  return Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
}
