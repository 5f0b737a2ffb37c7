// A release bundle in a web page or in Node: load a pair of files, test it, decode swipes.

import type * as Ort from "onnxruntime-web";
import { Decoder } from "./decoder.ts";
import { features } from "./features.ts";
import { Lexicon } from "./lexicon.ts";
import { selfTest, SelfTestError } from "./selftest.ts";
import type { Decoded, KnownAnswers, Point, Specification, Word } from "./specification.ts";

export { SelfTestError };
export type { Decoded, KnownAnswers, Point, Specification, Word };
export type Read = (name: string) => Promise<Uint8Array>;
const SELF_TEST_SWIPES = 3;

export class Client {
  private constructor(
    readonly spec: Specification, readonly decoder: Decoder, readonly warmUpMs: number, readonly selfTestMs: number,
  ) {}

  /**
   * Load an encoder and its step, and test them; `read` returns a file of the bundle by its name.
   *
   * @throws SelfTestError if the files are not decoded to the bundle's known answers.
   */
  static async load(ort: typeof Ort, read: Read, encoder: string, step?: string): Promise<Client> {
    const json = async (name: string) => JSON.parse(new TextDecoder().decode(await read(name)));
    const [spec, known]: [Specification, KnownAnswers] = [await json("decode.json"), await json("known_answers.json")];
    if (spec.schema !== 1) throw new SelfTestError(`decode.json has schema ${spec.schema}, expected 1`);
    const pair = known.pairs.find((item) =>
      item.encoder === encoder && item.step === (step ?? spec.files[encoder]?.step));
    if (!pair || known.checkpoint_sha256 !== spec.checkpoint_sha256) {
      throw new SelfTestError(`known_answers.json has no answers of ${encoder} and ${step ?? "its step"}`);
    }
    const open = async (name: string) => {
      const bytes = await checkedBytes(read, name, spec.files[name].sha256);
      const options = { executionProviders: ["wasm"], intraOpNumThreads: spec.session_options.onnx.intra_op_threads };
      return { session: await ort.InferenceSession.create(bytes, options), file: spec.files[name] };
    };
    const { file, sha256 } = spec.lexicon_search.words;
    const words = new TextDecoder().decode(await checkedBytes(read, file, sha256));
    const decoder = new Decoder(
      ort, spec, await open(pair.encoder), await open(pair.step), new Lexicon(words, spec.spellings));
    try {
      const took = await selfTest(decoder, spec, known, pair, SELF_TEST_SWIPES);
      return new Client(spec, decoder, took.warmUpMs, took.selfTestMs);
    } catch (error) {
      throw error instanceof SelfTestError ? error : new SelfTestError(`self-test: ${error}`);
    }
  }

  /** Return the words to show for a swipe, best first. */
  async words(points: Point[]): Promise<Word[]> {
    return this.decoder.search(await this.decoder.encode(features(points, this.spec)));
  }

  /** Return what a swipe is decoded as, and every value on the way. */
  async decode(points: Point[]): Promise<{ rows: Float32Array[]; greedy: Decoded; words: Word[] }> {
    const rows = features(points, this.spec);
    const frames = await this.decoder.encode(rows);
    return { rows, greedy: await this.decoder.greedy(frames), words: await this.decoder.search(frames) };
  }
}

async function checkedBytes(read: Read, name: string, sha256: string): Promise<Uint8Array> {
  const bytes = await read(name);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as BufferSource));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new SelfTestError(`${name}: SHA-256 is ${found}, expected ${sha256}`);
  return bytes;
}
