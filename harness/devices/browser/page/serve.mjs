// Answer requests with onnxruntime-web: a line of JSON, then the bytes of its tensors in a row.

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
  float16: globalThis.Float16Array ?? Uint16Array,
};

function pack(header, parts = []) {
  const line = new TextEncoder().encode(JSON.stringify(header) + "\n");
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, line.length));
  whole.set(line);
  let offset = line.length;
  for (const part of parts) {
    whole.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), offset);
    offset += part.byteLength;
  }
  return whole;
}

function unpack(message) {
  const bytes = new Uint8Array(message);
  const end = bytes.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  return [header, message.slice(end + 1)];
}

function described(metadata, names) {
  return metadata?.map(({ name, type, shape }) => ({ name, type, shape })) ?? names.map((name) => ({ name }));
}

export async function serve(link, asked, load, wasm) {
  const sessions = new Map();
  let ort = null;

  // Input sets that follow each other in a body; a typed array has to begin at its own alignment.
  function tensors(sets, body) {
    let offset = 0;
    return sets.map((set) =>
      Object.fromEntries(
        set.map(({ name, type, dims, bytes }) => {
          const data = new ARRAYS[type](body.slice(offset, offset + bytes));
          offset += bytes;
          return [name, new ort.Tensor(type, data, dims)];
        }),
      ),
    );
  }

  const answers = {
    async about() {
      return pack({
        version: ort.env.versions?.web ?? ort.env.versions?.common,
        isolated: globalThis.crossOriginIsolated ?? null,
        agent: globalThis.navigator?.userAgent ?? `Node ${process.version}`,
        gpu: await graphicsProcessor(),
      });
    },
    async open({ id }, body) {
      const options = { executionProviders: [asked.provider], logSeverityLevel: 3 };
      const start = performance.now();
      const session = await ort.InferenceSession.create(new Uint8Array(body), options);
      const ms = performance.now() - start;
      sessions.set(id, session);
      const inputs = described(session.inputMetadata, session.inputNames);
      return pack({ ms, inputs, outputs: described(session.outputMetadata, session.outputNames) });
    },
    async run({ id, sets }, body) {
      const found = await sessions.get(id).run(tensors(sets, body)[0]);
      const outputs = [], parts = [];
      for (const [name, tensor] of Object.entries(found)) {
        const data = await tensor.getData();
        outputs.push({ name, type: tensor.type, dims: tensor.dims, bytes: data.byteLength });
        parts.push(data);
        tensor.dispose();
      }
      return pack({ outputs }, parts);
    },
    // Each set of inputs in turn, all of them some times; milliseconds of each run.
    async time({ id, sets, runs }, body) {
      const session = sessions.get(id), feeds = tensors(sets, body), ms = [];
      for (let turn = 0; turn < runs; turn++) {
        for (const feed of feeds) {
          const start = performance.now();
          const found = await session.run(feed);
          for (const tensor of Object.values(found)) await tensor.getData();
          ms.push(performance.now() - start);
        }
      }
      return pack({ ms });
    },
    // A client of a bundle (clients/web), from the points of a swipe to its words.
    async client({ id, module, bundle, encoder, step }) {
      const beside = (name) => new URL(`../${name}`, wasm).href;
      const { Client } = await import(beside(module));
      const read = async (name) => new Uint8Array(await (await fetch(beside(bundle + name))).arrayBuffer());
      const start = performance.now();
      const client = await Client.load(ort, read, encoder, step);
      sessions.set(id, client);
      return pack({ ms: performance.now() - start, warmUpMs: client.warmUpMs, selfTestMs: client.selfTestMs });
    },
    async swipes({ id, swipes, runs }) {
      const client = sessions.get(id), ms = [];
      let words = [];
      for (const points of swipes) {
        for (let turn = 0; turn < runs; turn++) {
          const start = performance.now();
          words = await client.words(points);
          ms.push(performance.now() - start);
        }
      }
      return pack({ ms, words: words.map(({ text }) => text) });
    },
    // What scripts and WebAssembly hold, after a collection.
    async memory() {
      return pack({ bytes: (await performance.measureUserAgentSpecificMemory()).bytes });
    },
    async release({ id }) {
      await sessions.get(id)?.release();
      sessions.delete(id);
      return pack({});
    },
  };

  async function answer(message) {
    const [header, body] = unpack(message);
    if (!ort) {
      ort = await load();
      ort = ort.InferenceSession ? ort : ort.default;
      ort.env.logLevel = "error";
      ort.env.wasm.numThreads = Number(asked.threads);
      if (wasm) ort.env.wasm.wasmPaths = wasm;
    }
    return answers[header.ask](header, body);
  }

  for (let message; (message = await link.receive()) !== null; ) {
    try {
      link.send(await answer(message));
    } catch (error) {
      // After a trap the module's memory may be anything.
      const dead = error instanceof WebAssembly.RuntimeError;
      // Older versions let C++ exceptions through, of which JavaScript sees the address.
      const thrown = typeof error === "number" ? "an exception without a message" : error;
      link.send(pack({ error: String(thrown?.message ?? thrown), dead }));
    }
  }
}

async function graphicsProcessor() {
  const info = (await globalThis.navigator?.gpu?.requestAdapter())?.info;
  return info ? [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") : null;
}
