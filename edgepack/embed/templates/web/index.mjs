// A recommender in the page: fetch and check the bundle's files, score a history (and a search), rank the items.
import { facts } from "./facts.mjs";

export { facts };
export { openHistory } from "./history.mjs";

const LEAST_AGREEMENT = 0.99; // of the lists that sit too close to a tie to be equal everywhere
const MOST_REASONS = 12; // one inference each
// (v128.const 0) i8x16.popcnt: what every build of the runtime is made of.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export class EdgepackError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "EdgepackError";
    this.code = code;
  }
}

const asHex = (buffer) => Array.from(new Uint8Array(buffer), (b) => b.toString(16).padStart(2, "0")).join("");
const asJson = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

async function isIntact(name, bytes) {
  return asHex(await crypto.subtle.digest("SHA-256", bytes)) === facts.files[name].sha256;
}

async function read(response, onBytes) {
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts).arrayBuffer();
    parts.push(value);
    onBytes(value.byteLength);
  }
}

async function fetched(url, signal, onBytes) {
  let status;
  try {
    const response = await fetch(url, { signal, cache: "no-cache" }); // an update may keep a file's name
    if (response.ok) return await read(response, onBytes);
    status = response.status;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new EdgepackError("network", `${url} could not be reached.`);
  }
  throw new EdgepackError("network", `${url} could not be loaded (HTTP ${status}).`);
}

const placed = (baseUrl) => new URL(baseUrl, globalThis.document?.baseURI ?? import.meta.url);
// By place and content: other apps of this origin keep theirs.
const familyOf = (base) => `edgepack ${new URL(".", base).pathname} `;
const cacheOf = (base) => familyOf(base) + facts.contentHash.slice(0, 16);

/** The browser's own store of checked files; without one (private windows, http) every load uses the network. */
function opened(base) {
  return globalThis.caches ? caches.open(cacheOf(base)).catch(() => null) : null;
}

async function checked(name, { base, signal, cache, onBytes, onUncached }) {
  const url = new URL(name, base).href;
  const kept = await cache?.match(url);
  if (kept) {
    const bytes = await kept.arrayBuffer();
    if (await isIntact(name, bytes)) {
      onBytes(bytes.byteLength);
      return bytes;
    }
  }
  const bytes = await fetched(url, signal, onBytes);
  if (!(await isIntact(name, bytes)))
    throw new EdgepackError("hash-mismatch", `${name} is not the file that was embedded; nothing was run.`);
  try {
    if (!cache) throw new Error("this browser keeps no files for this page");
    await cache.put(url, new Response(bytes));
  } catch (error) {
    onUncached(error.name === "QuotaExceededError" ? "the browser's storage is full" : error.message);
  }
  return bytes;
}

async function dropOlder(base) {
  for (const name of globalThis.caches ? await caches.keys() : [])
    if (name.startsWith(familyOf(base)) && name !== cacheOf(base)) await caches.delete(name);
}

/** Item indices of the k best scores. Equal scores order by lower index; index 0 is padding. */
export function topK(scores, k, isExcluded) {
  const better = (a, b) => scores[b] - scores[a] || a - b;
  const best = [];
  for (let index = 1; index < scores.length; index++) {
    if (isExcluded(index) || (best.length === k && better(index, best[k - 1]) > 0)) continue;
    best.push(index);
    best.sort(better);
    if (best.length > k) best.pop();
  }
  return best;
}

/** The newest `length` item indices, oldest first, right-aligned, 0 = padding. */
export function rightAligned(history, length) {
  const row = new Int32Array(length);
  const newest = history.slice(-length);
  row.set(newest, length - newest.length);
  return row;
}

/** Query ids, left-aligned, 0 = padding. */
function leftAligned(ids, length) {
  const row = new Int32Array(length);
  row.set(ids);
  return row;
}

const overlap = (found, expected) => expected.filter((index) => found.includes(index)).length / expected.length;

async function started(api, wasm, model) {
  // From checked bytes: the runtime asks the network for nothing by itself.
  const url = URL.createObjectURL(new Blob([api], { type: "text/javascript" }));
  const ort = await import(/* webpackIgnore: true */ /* @vite-ignore */ url);
  URL.revokeObjectURL(url);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  return [ort, await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] })];
}

/** Load the runtime and the model; every byte is checked before it is used. */
export async function load({ baseUrl = import.meta.url, onProgress = () => {}, signal } = {}) {
  if (!WebAssembly.validate(new Uint8Array(SIMD)))
    throw new EdgepackError("no-simd", "This browser's WebAssembly has no SIMD, which the model's runtime needs.");
  const names = Object.keys(facts.files);
  const totalBytes = names.reduce((sum, name) => sum + facts.files[name].bytes, 0);
  let loadedBytes = 0;
  let cacheWhy = "";
  signal?.throwIfAborted();
  const stop = new AbortController(); // one bad file ends the other downloads, and the progress
  signal?.addEventListener("abort", () => stop.abort(signal.reason));
  const base = placed(baseUrl);
  const how = {
    base,
    signal: stop.signal,
    cache: await opened(base),
    onBytes: (bytes) => stop.signal.aborted || onProgress({ loadedBytes: (loadedBytes += bytes), totalBytes }),
    onUncached: (why) => (cacheWhy = why),
  };
  const all = names.map(async (name) => [name, await checked(name, how)]);
  const bytes = Object.fromEntries(
    await Promise.all(all).catch((error) => {
      stop.abort();
      throw error;
    }),
  );
  const vocabulary = asJson(bytes["vocabulary.json"]);
  const goldens = asJson(bytes["goldens.json"]);
  const [ort, session] = await started(bytes[facts.runtime.api], bytes[facts.runtime.wasm], bytes[facts.model]);
  await dropOlder(base);
  const indexOf = new Map(vocabulary.map((id, index) => [id, index]));
  indexOf.delete(vocabulary[0]); // padding is no item
  const known = (ids) => ids.map((id) => indexOf.get(id)).filter((index) => index !== undefined);
  // Only a search model reads text, so only its page loads what hashes it.
  const { hashQuery } = facts.query ? await import("./query.mjs") : {};

  // A session runs one inference at a time, and a shopper may be faster.
  let last = Promise.resolve();
  const inTurn = (work) => (last = last.catch(() => {}).then(work));

  const scored = (history, queryIds) =>
    inTurn(async () => {
      const width = facts.historyLength;
      const feeds = { history: new ort.Tensor("int32", rightAligned(history, width), [1, width]) };
      if (facts.query) {
        const row = leftAligned(queryIds, facts.query.length);
        feeds.query = new ort.Tensor("int32", row, [1, facts.query.length]);
      }
      return (await session.run(feeds)).scores.data;
    });

  async function ranked(history, { k = goldens.k, exclude = [], queryIds }) {
    const scores = await scored(history, queryIds);
    const out = new Set(facts.filterSeen ? [...history, ...exclude] : exclude);
    return topK(scores, k, (index) => out.has(index)).map((index) => ({ index, score: scores[index] }));
  }

  const hashed = (query) => (facts.query ? hashQuery(query, facts.query) : []);

  async function recommend(history, { k, exclude = [], query = "" } = {}) {
    const begun = performance.now();
    const found = await ranked(known(history), { k, exclude: known(exclude), queryIds: hashed(query) });
    return {
      items: found.map(({ index, score }) => ({ id: vocabulary[index], score })),
      milliseconds: performance.now() - begun,
      unknown: history.filter((id) => !indexOf.has(id)),
    };
  }

  async function explain(history, ids, { query = "" } = {}) {
    const read = known(history).slice(-facts.historyLength);
    const whole = await scored(read, hashed(query));
    const without = new Map();
    for (const one of [...new Set(read)].slice(-MOST_REASONS))
      without.set(one, await scored(read.filter((index) => index !== one), hashed(query)));
    return ids.map((id) => {
      const index = indexOf.get(id);
      const pulls = [...without].map(([one, scores]) => ({ id: vocabulary[one], pull: whole[index] - scores[index] }));
      return pulls.filter(({ pull }) => pull > 0).sort((a, b) => b.pull - a.pull);
    });
  }

  async function selfTest() {
    const answer = async ({ history, query: queryIds = [] }) =>
      (await ranked(history, { queryIds })).map(({ index }) => index);
    const shares = [];
    for (const one of goldens.random ?? []) shares.push(overlap(await answer(one), one.top_k));
    const agreement = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
    let same = 0;
    for (const one of goldens.cases)
      if (String((await answer(one)).slice(0, one.top_k.length)) === String(one.top_k)) same++;
    const total = goldens.cases.length;
    return { same, total, passed: same === total && (shares.length === 0 || agreement >= LEAST_AGREEMENT) };
  }

  const dispose = () => inTurn(() => session.release());
  return { items: vocabulary.slice(1), cached: cacheWhy === "", cacheWhy, recommend, explain, selfTest, dispose };
}

export async function isCached({ baseUrl = import.meta.url } = {}) {
  const base = placed(baseUrl);
  const cache = await opened(base);
  const kept = await Promise.all(Object.keys(facts.files).map((name) => cache?.match(new URL(name, base).href)));
  return kept.every(Boolean);
}

export async function clearCache({ baseUrl = import.meta.url } = {}) {
  await globalThis.caches?.delete(cacheOf(placed(baseUrl)));
}
