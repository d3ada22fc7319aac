// The engine in a thread of its own, so that a page stays smooth: answers what index.mjs posts, call by call.
import { start } from "./engine.mjs";

let engine = { start: async (...given) => void (engine = await start(...given)) };

globalThis.onmessage = async ({ data: { id, call, given } }) => {
  try {
    postMessage({ id, found: await engine[call](...given) });
  } catch ({ name, message }) {
    postMessage({ id, failed: { name, message } });
  }
};
