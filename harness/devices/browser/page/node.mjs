// The same in Node: node node.mjs SOCKET FOLDER NAME=VALUE…
import { pathToFileURL } from "node:url";
import { connect } from "./link.mjs";
import { serve } from "./serve.mjs";

const [socket, folder, ...given] = process.argv.slice(2);
const asked = Object.fromEntries(given.map((item) => item.split("=")));
const module = new URL(asked.module, pathToFileURL(folder + "/"));
await serve(await connect(socket), asked, () => import(module));
