// node run.mjs CLIENT.js BUNDLE ENCODER [STEP]: decode swipes from standard input, a JSON line each.
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const ort = createRequire(import.meta.url)("onnxruntime-web");
const [path, folder, encoder, step] = process.argv.slice(2);
const { Client } = await import(pathToFileURL(resolve(path)));
ort.env.wasm.numThreads = 1;
// The self-test is timed by what this thread runs: other work on the machine does not move it.
const clock = performance.now;
performance.now = () => Number(readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[0]) / 1e6;
try {
  const client = await Client.load(ort, (name) => readFile(`${folder}/${name}`), encoder, step);
  performance.now = clock;
  console.log(JSON.stringify({ warm_up_ms: client.warmUpMs, self_test_ms: client.selfTestMs }));
  for await (const line of createInterface({ input: process.stdin })) {
    const begin = performance.now();
    const { rows, greedy, words } = await client.decode(JSON.parse(line));
    const ms = performance.now() - begin;
    const features = rows.map((row) => Array.from(row));
    console.log(JSON.stringify({ ms, features, tokens: greedy.tokens, score: greedy.score, words }));
  }
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
