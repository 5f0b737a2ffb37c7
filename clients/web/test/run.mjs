// node run.mjs CLIENT.js BUNDLE ENCODER [STEP]: decode swipes from standard input, a JSON line each.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const ort = createRequire(import.meta.url)("onnxruntime-web");
const [path, folder, encoder, step] = process.argv.slice(2);
const { Client } = await import(pathToFileURL(resolve(path)));
ort.env.wasm.numThreads = 1;
try {
  const load = () => Client.load(ort, (name) => readFile(`${folder}/${name}`), encoder, step);
  const client = await load();
  console.log(JSON.stringify({ self_test_ms: client.selfTestMs }));
  // The first start compiles WebAssembly on the way; how long a test takes without is asked for by STARTS.
  for (let start = 1; start < Number(process.env.STARTS ?? 1); start++) {
    console.log(JSON.stringify({ self_test_ms: (await load()).selfTestMs }));
  }
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
