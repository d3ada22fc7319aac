// What a developer wants to know of the model while the page runs.
import { at } from "./view.mjs";

const number = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits });

const WORDS = {
  model_bytes: "model",
  download_bytes: "download",
  peak_memory_bytes: "peak memory",
  latency_ms: "latency",
  load_ms: "load time",
};

export function size(bytes) {
  if (bytes < 1_000) return `${bytes} B`;
  return bytes < 999_950 ? `${number(bytes / 1e3, 1)} kB` : `${number(bytes / 1e6, 2)} MB`;
}

/** A figure of the budget with the unit that its limit's name tells. */
function quantity(limit, value) {
  if (value === null) return "not measured";
  if (limit.endsWith("_bytes")) return size(value);
  if (limit.endsWith("_ms")) return `${number(value, 2)} ms`;
  return limit.includes("drop of ") ? `${number(100 * value, 2)} %` : number(value, 3);
}

/** The least value that so large a share of the values does not exceed. */
export function quantile(values, share) {
  return [...values].sort((a, b) => a - b)[Math.ceil(share * values.length) - 1];
}

/** `rankings` of this visit: how long the page waited, and the model's own part. */
export function showLatency(rankings) {
  const waited = rankings.map(({ milliseconds }) => milliseconds);
  const model = quantile(rankings.map(({ inferenceMs }) => inferenceMs), 0.5);
  const [p50, p95] = [0.5, 0.95].map((share) => quantile(waited, share).toFixed(1));
  at("latency").textContent = `p50 ${p50} ms, p95 ${p95} ms of ${waited.length}; the model alone ${model.toFixed(1)} ms`;
}

function limitRow({ limit, allowed, found, status }) {
  const row = document.createElement("tr");
  const bound = `${limit.startsWith("overlap") ? "≥" : "≤"} ${quantity(limit, allowed)}`;
  const words = WORDS[limit] ?? limit.replaceAll("_", " ");
  const cells = [words, bound, quantity(limit, found), status];
  for (const [place, text] of cells.entries()) {
    const cell = document.createElement(place ? "td" : "th");
    if (!place) cell.scope = "row";
    cell.textContent = text;
    row.append(cell);
  }
  row.lastChild.className = status === "within" ? "good" : "bad";
  return row;
}

/** Count what the page asks the network for from now on: nothing, unless the page is changed. */
function countRequests() {
  let count = 0;
  new PerformanceObserver((list) => {
    count += list.getEntries().filter(({ name }) => !name.startsWith("blob:") && !name.startsWith("data:")).length;
    at("requests").textContent = String(count);
  }).observe({ type: "resource" });
}

export async function describe(recommender, facts) {
  const { name, version, threads, why, inWorker } = recommender.backend;
  const { bytes, sha256 } = facts.files[facts.model];
  at("backend").textContent =
    `${name} ${version}, WebAssembly, ${threads} thread ${inWorker ? "in a worker" : "in the page"} (${why})`;
  at("model").textContent = `${facts.format} by recipe ${facts.recipe}, ${number(facts.itemCount)} items`;
  at("file").textContent = `${facts.model}, ${size(bytes)}, SHA-256 ${sha256.slice(0, 12)}… verified`;
  at("bundle").textContent = `${facts.name} for ${facts.target}, ${facts.contentHash.slice(0, 12)}…`;
  at("limits").replaceChildren(...facts.limits.map(limitRow));
  const { same, total, passed } = await recommender.selfTest();
  at("self-test").textContent = `${passed ? "✓" : "✗"} ${same} of ${total} recorded lists reproduced`;
  at("self-test").className = passed ? "good" : "bad";
  at("hood").open ||= !passed;
  const whyNot = await recommender.whyNotKept;
  at("kept").textContent = whyNot ? `Not kept: ${whyNot}` : "Kept for the next visit";
  countRequests();
}
