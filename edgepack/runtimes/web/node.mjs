// node node.mjs JOB.json: does the job in Node, its answer as JSON on stdout.
import { appendFile, readFile } from "node:fs/promises";
import { writeSync } from "node:fs";
import { perform } from "./engine.mjs";

const exactBytes = (buffer) => buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
const host = {
  imported: (code) => import(`data:text/javascript;base64,${Buffer.from(code).toString("base64")}`), // no blobs here
  read: async (path) => exactBytes(await readFile(path)),
  append: (path, bytes) => appendFile(path, new Uint8Array(bytes)),
  cpuMs: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};
const answer = await perform(JSON.parse(await readFile(process.argv[2], "utf8")), host);
writeSync(1, JSON.stringify(answer));
process.exit(0); // the runtime's handles would keep the process alive
