// The folder's files: fetched, checked before they are used, and kept for the next visit.
import { facts } from "./facts.mjs";

const PROGRESS_STEPS = 50; // a page that draws each of the thousand pieces of a download is slowed by it

export class EdgepackError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "EdgepackError";
    this.code = code;
  }
}

const asHex = (buffer) => Array.from(new Uint8Array(buffer), (b) => b.toString(16).padStart(2, "0")).join("");

async function isIntact(bytes, sha256) {
  return asHex(await crypto.subtle.digest("SHA-256", bytes)) === sha256;
}

/** The body, which should have so many bytes; of a longer one no more, for it fails its check anyway. */
async function read(response, size, onBytes) {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const reader = response.body.getReader(); at <= size; ) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes.set(value.subarray(0, size - at), at);
    at += value.byteLength;
    onBytes(value.byteLength);
  }
  return at === size ? bytes.buffer : new ArrayBuffer(0);
}

async function fetched(url, size, signal, onBytes) {
  let status;
  try {
    const response = await fetch(url, { signal, cache: "no-cache" }); // an update may keep a file's name
    if (response.ok) return await read(response, size, onBytes);
    status = response.status;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new EdgepackError("network", `${url} could not be reached.`);
  }
  throw new EdgepackError("network", `${url} could not be loaded (HTTP ${status}).`);
}

// By place and content: other apps of this origin keep theirs.
const familyOf = (base) => `edgepack ${new URL(".", base).pathname} `;
const cacheOf = (base) => familyOf(base) + facts.contentHash.slice(0, 16);

/** The browser's own store of checked files, if it holds some; asking is quicker than making an empty one. */
async function filled(base) {
  try {
    return (await caches.has(cacheOf(base))) ? await caches.open(cacheOf(base)) : null;
  } catch {
    return null; // there is none in private windows and over http: every load uses the network
  }
}

/** Keep files for the next visit; why that failed, "" when it did not. */
async function put(base, files) {
  if (!globalThis.caches) return "this browser keeps no files for this page";
  try {
    const cache = await caches.open(cacheOf(base));
    await Promise.all(files.map(([url, bytes]) => cache.put(url, new Response(bytes))));
    return "";
  } catch (error) {
    return error.name === "QuotaExceededError" ? "the browser's storage is full" : error.message;
  }
}

async function checked(name, expected, { base, signal, cache, onBytes, fresh }) {
  const url = new URL(name, base).href;
  const kept = await cache?.match(url);
  if (kept) {
    const bytes = await kept.arrayBuffer();
    if (await isIntact(bytes, expected.sha256)) {
      onBytes(bytes.byteLength);
      return bytes;
    }
  }
  const bytes = await fetched(url, expected.bytes, signal, onBytes);
  if (!(await isIntact(bytes, expected.sha256)))
    throw new EdgepackError("hash-mismatch", `${name} is not the file that was embedded; nothing was run.`);
  fresh.push([url, bytes]);
  return bytes;
}

/**
 * The bytes of all `files` of some facts by name, and `keep`, which writes what is new and tells why it could not,
 * "" when it did.
 */
export async function all(files, base, onProgress, signal) {
  const totalBytes = Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
  let loadedBytes = 0;
  let toldBytes = 0;
  const tell = (bytes) => {
    loadedBytes += bytes;
    if (stop.signal.aborted || (loadedBytes < totalBytes && loadedBytes - toldBytes < totalBytes / PROGRESS_STEPS)) return;
    onProgress({ loadedBytes: (toldBytes = loadedBytes), totalBytes });
  };
  const stop = new AbortController(); // one bad file ends the other downloads, and the progress
  signal?.addEventListener("abort", () => stop.abort(signal.reason));
  const how = {
    base,
    signal: stop.signal,
    cache: await filled(base),
    onBytes: tell,
    fresh: [],
  };
  const wanted = Object.entries(files).map(async ([name, expected]) => [name, await checked(name, expected, how)]);
  const bytes = await Promise.all(wanted).catch((error) => {
    stop.abort();
    throw error;
  });
  return { bytes: Object.fromEntries(bytes), keep: () => put(base, how.fresh) };
}

/** Let go of what earlier bundles of this place kept. */
export async function dropOlder(base) {
  for (const name of globalThis.caches ? await caches.keys() : [])
    if (name.startsWith(familyOf(base)) && name !== cacheOf(base)) await caches.delete(name);
}

export async function areKept(base) {
  const cache = await filled(base);
  const kept = await Promise.all(Object.keys(facts.files).map((name) => cache?.match(new URL(name, base).href)));
  return kept.every(Boolean);
}

export async function forget(base) {
  await globalThis.caches?.delete(cacheOf(base));
}
