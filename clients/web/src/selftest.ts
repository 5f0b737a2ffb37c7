// The self-test: what a pair of files gives for swipes whose answers are known.

import type { Decoder } from "./decoder.ts";
import { features } from "./features.ts";
import type { KnownAnswers, Pair, Specification } from "./specification.ts";

/** The bundle's files are not decoded as they should be: do not use them. */
export class SelfTestError extends Error {}

/**
 * Decode the first swipes of a pair; throw what differs first. A page compiles what it runs first: one
 * swipe goes ahead, for which a user would wait otherwise.
 */
export async function selfTest(
  decoder: Decoder, spec: Specification, known: KnownAnswers, pair: Pair, swipes: number,
): Promise<{ warmUpMs: number; selfTestMs: number }> {
  const begin = performance.now();
  const first = await decoder.encode(features(known.swipes[0].points, spec));
  await decoder.greedy(first);
  const [word] = await decoder.search(first);
  const warm = performance.now();
  for (const [n, swipe] of known.swipes.slice(0, swipes).entries()) {
    const [answer, allowed] = [pair.answers[n], pair.tolerances];
    const check = (what: string, fits: boolean) => {
      if (!fits) throw new SelfTestError(`swipe ${n} ("${answer.text}"): not the known ${what}`);
    };
    const rows = features(swipe.points, spec);
    check("features", rows.length === swipe.features.length && rows.every((row, i) =>
      row.every((value, c) => within(value, swipe.features[i][c],
        known.feature_tolerance * Math.max(1, Math.abs(swipe.features[i][c]))))));
    const frames = await decoder.encode(rows);
    const squares = answer.encoded.flat().map((value) => value * value);
    const rms = Math.sqrt(squares.reduce((a, b) => a + b, 0) / squares.length);
    check("encoding", frames.length === answer.encoded.length && frames.every((frame, t) =>
      frame.every((value, d) => within(value, answer.encoded[t][d], allowed.encoded * rms))));
    const greedy = await decoder.greedy(frames);
    check("tokens", same(greedy.tokens, answer.tokens) && same(greedy.frames, answer.frames));
    check("steps", greedy.steps.length === answer.steps.length && greedy.steps.every((step, i) =>
      step.frame === answer.steps[i].frame && step.y_prev === answer.steps[i].y_prev));
    check("logits", greedy.steps.every((step, i) => Array.from(step.logits).every((value, k) =>
      within(value, answer.steps[i].logits[k], allowed.logits))));
    check("score", within(greedy.score, answer.score, allowed.score));
    if (n > 0) continue;
    check("first word", word?.text === answer.words[0].text);
    check("score of the first word", within(word.score, answer.words[0].score, allowed.score));
  }
  return { warmUpMs: warm - begin, selfTestMs: performance.now() - warm };
}

// False for NaN.
const within = (value: number, known: number, most: number) => Math.abs(value - known) <= most;
const same = (a: number[], b: number[]) => a.length === b.length && a.every((v, i) => v === b[i]);
