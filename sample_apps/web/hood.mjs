// What a developer wants to know of the model while the page runs.
import { at } from "./view.mjs";

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
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
  const cells = [limit, number.format(allowed), found === null ? "–" : number.format(found), status];
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
  const file = facts.files[facts.model];
  const kilobytes = Math.max(1, Math.round(file.bytes / 1000)).toLocaleString("en");
  at("backend").textContent =
    `${name} ${version}, WebAssembly, ${threads} thread ${inWorker ? "in a worker" : "in the page"} (${why})`;
  at("model").textContent =
    `${facts.model}, ${facts.format}, ${kilobytes} kB, ${facts.itemCount.toLocaleString("en")} items; ` +
    `SHA-256 ${file.sha256.slice(0, 12)}… verified; bundle ${facts.contentHash.slice(0, 12)}… for ${facts.target}`;
  at("limits").replaceChildren(...facts.limits.map(limitRow));
  const { same, total, passed } = await recommender.selfTest();
  at("self-test").textContent = `${passed ? "✓" : "✗"} ${same} of ${total} recorded lists reproduced`;
  at("self-test").className = passed ? "good" : "bad";
  at("hood").open ||= !passed;
  const whyNot = await recommender.whyNotKept;
  at("kept").textContent = whyNot ? `Not kept: ${whyNot}` : "Kept for the next visit";
  countRequests();
}
