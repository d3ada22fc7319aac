// A recommender in the page: loads the engine, in a worker where there is one, and asks it.
import { openCatalogue } from "./catalogue.mjs";
import { facts } from "./facts.mjs";
import { all, areKept, dropOlder, EdgepackError, forget } from "./files.mjs";

export { facts, EdgepackError };
export { openHistory } from "./history.mjs";

// (v128.const 0) i8x16.popcnt: what every build of the runtime is made of.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const WHY_ONE_THREAD = "what its figures were measured with; more threads would need an isolated page";

const placed = (baseUrl) => new URL(baseUrl, globalThis.document?.baseURI ?? import.meta.url).href;

/** The engine's calls, answered by a worker. */
function remote() {
  const worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
  const waiting = new Map();
  let calls = 0;
  let broken;
  const stop = (error) => {
    broken = error;
    for (const { reject } of waiting.values()) reject(error);
    worker.onmessage = null;
    worker.terminate();
  };
  worker.onmessage = ({ data: { id, found, failed } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (failed) reject(Object.assign(new Error(failed.message), { name: failed.name }));
    else resolve(found);
  };
  worker.onerror = () => stop(new EdgepackError("network", "worker.mjs could not be loaded."));
  const ask = (call, given) =>
    new Promise((resolve, reject) => {
      if (broken) return reject(broken);
      waiting.set(++calls, { resolve, reject });
      worker.postMessage({ id: calls, call, given });
    });
  return { ask, end: () => stop(new Error("This recommender was disposed of.")) };
}

function inWorker(model) {
  const { ask, end } = remote(); // its scripts load while the files do
  const asking = (call) => (...given) => ask(call, given);
  return {
    end,
    async start(bytes) {
      await ask("start", [model, bytes]);
      const calls = ["recommend", "explain", "selfTest"].map((call) => [call, asking(call)]);
      return { ...Object.fromEntries(calls), dispose: () => ask("dispose", []).then(end) };
    },
  };
}

function inPage(model) {
  const engine = import("./engine.mjs");
  engine.catch(() => {}); // told when it is asked for
  return { end() {}, start: async (bytes) => (await engine).start(model, bytes) };
}

const LONGEST_WAIT_MS = 2000;
const after = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const asJson = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** Load the runtime and the model; every byte is checked before it is used. */
export const load = (options) => opened(facts, options);

/** Load the model that this one is compared with, in a runtime of its own; `embed --compare` brings one. */
export async function loadCompared(options) {
  if (!facts.compared) throw new EdgepackError("nothing-to-compare", "No second model is embedded here.");
  return opened(facts.compared, options);
}

async function opened(
  model,
  { baseUrl = import.meta.url, worker = typeof Worker !== "undefined", onProgress = () => {}, signal } = {},
) {
  if (!WebAssembly.validate(new Uint8Array(SIMD)))
    throw new EdgepackError("no-simd", "This browser's WebAssembly has no SIMD, which the model's runtime needs.");
  signal?.throwIfAborted();
  const base = placed(baseUrl);
  const place = worker ? inWorker(model) : inPage(model);
  try {
    const { bytes, keep } = await all(model.files, base, onProgress, signal);
    const vocabulary = asJson(bytes[model.vocabulary]);
    const catalogue = bytes["catalogue.json"] && asJson(bytes["catalogue.json"]);
    const engine = await place.start(bytes);
    signal?.throwIfAborted();
    await dropOlder(base);
    const { name, version } = model.runtime;
    const backend = { name, version, threads: 1, why: WHY_ONE_THREAD, inWorker: worker };
    return recommender(engine, { vocabulary, catalogue: openCatalogue(vocabulary, catalogue), backend, keep });
  } catch (error) {
    place.end();
    throw error;
  }
}

function recommender(engine, { vocabulary, catalogue, backend, keep }) {
  let answered;
  const first = new Promise((resolve) => (answered = resolve));
  return {
    ...engine,
    items: vocabulary.slice(1),
    catalogue,
    backend,
    // Megabytes to write, which the first list does not wait for.
    whyNotKept: Promise.race([first, after(LONGEST_WAIT_MS)]).then(keep),
    async recommend(history, options) {
      const begun = performance.now();
      const found = await engine.recommend(history, options).finally(answered);
      return { ...found, milliseconds: performance.now() - begun };
    },
  };
}

export const isCached = ({ baseUrl = import.meta.url } = {}) => areKept(placed(baseUrl));
export const clearCache = ({ baseUrl = import.meta.url } = {}) => forget(placed(baseUrl));
