// A recommender from static files: load and check a bundle, score a history (and a search), rank the items.

const API = "ort.wasm.bundle.min.mjs";
const WASM = "ort-wasm-simd-threaded.wasm";
const LEAST_AGREEMENT = 0.99; // of the lists that sit too close to a tie to be equal everywhere

const asHex = (buffer) => Array.from(new Uint8Array(buffer), (b) => b.toString(16).padStart(2, "0")).join("");

async function fetchBytes(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} could not be loaded (HTTP ${response.status}).`);
  return response.arrayBuffer();
}

async function fetchChecked(folder, name, expected) {
  if (!expected) throw new Error(`The manifest names no hash for ${name}; nothing was run.`);
  const bytes = await fetchBytes(folder + name);
  const found = asHex(await crypto.subtle.digest("SHA-256", bytes));
  if (found !== expected) throw new Error(`${name} is not the file that the manifest names; nothing was run.`);
  return bytes;
}

const asJson = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

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

/** Load a bundle and its runtime; every file is checked against the manifest before it is used. */
export async function load({ bundle = "bundle/", runtime = "runtime/" } = {}) {
  const manifest = asJson(await fetchBytes(bundle + "manifest.json"));
  const read = (name) => fetchChecked(bundle, name, manifest.files[name]?.sha256);
  const [model, vocabulary, goldens] = await Promise.all([
    read(manifest.model_file),
    read("vocabulary.json").then(asJson),
    read("goldens.json").then(asJson),
  ]);
  const ort = await import(new URL(runtime + API, document.baseURI));
  ort.env.wasm.numThreads = 1;
  // Handed over as bytes, so that the runtime asks the network for nothing by itself.
  ort.env.wasm.wasmBinary = await fetchChecked(runtime, WASM, manifest.runtime.files[WASM]);
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  const { history_length: length, filter_seen: filterSeen, query: hashing } = manifest.contract;
  // Only a search model reads text, so only its page loads what hashes it.
  const { hashQuery } = hashing ? await import("./query.mjs") : {};

  /** The best items for a history and, with a search model, a search `text` or its ids `query`. */
  async function recommend(history, { k = goldens.k, exclude = [], text = "", query } = {}) {
    const started = performance.now();
    const feeds = { history: new ort.Tensor("int32", rightAligned(history, length), [1, length]) };
    if (hashing) {
      const ids = query ? leftAligned(query, hashing.length) : hashQuery(text, hashing);
      feeds.query = new ort.Tensor("int32", ids, [1, hashing.length]);
    }
    const scores = (await session.run(feeds)).scores.data;
    const out = new Set(filterSeen ? [...history, ...exclude] : exclude);
    const items = topK(scores, k, (index) => out.has(index));
    return { items, milliseconds: performance.now() - started };
  }

  /** Does this browser give the lists that were recorded when the bundle was made? */
  async function selfTest() {
    const shares = [];
    for (const { history, query = [], top_k } of goldens.random ?? [])
      shares.push(overlap((await recommend(history, { query })).items, top_k));
    const agreement = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
    let same = 0;
    for (const { history, query = [], top_k } of goldens.cases) {
      const { items } = await recommend(history, { query });
      if (String(items.slice(0, top_k.length)) === String(top_k)) same++;
    }
    const total = goldens.cases.length;
    return { same, total, passed: same === total && (shares.length === 0 || agreement >= LEAST_AGREEMENT) };
  }

  return { manifest, vocabulary, modelBytes: model.byteLength, recommend, selfTest };
}
