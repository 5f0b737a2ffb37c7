// node serve.mjs BUNDLE [PORT]: the demo page, on this machine only.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [bundle, port = "8017"] = process.argv.slice(2);
const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
  ".json": "application/json", ".wasm": "application/wasm", ".tsv": "text/tab-separated-values",
};
const FOLDERS = {
  "/": here, "/client/": join(here, "..", "dist"), "/bundle/": bundle,
  "/ort/": join(here, "..", "node_modules", "onnxruntime-web", "dist"),
};

const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  const name = basename(path) === "" || path === "/" ? "index.html" : basename(path);
  const folder = FOLDERS[path.slice(0, path.length - basename(path).length)];
  try {
    if (!folder) throw new Error("no such folder");
    const body = await readFile(join(folder, name));
    response.writeHead(200, {
      "Content-Type": TYPES[extname(name)] ?? "application/octet-stream",
      "Cache-Control": "no-store",
      // Without these two a page has no threads.
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
server.on("error", (error) => { console.error(`error: ${error.message}`); process.exitCode = 1; });
server.listen(Number(port), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/ shows ${bundle}; Ctrl-C ends it`);
});
