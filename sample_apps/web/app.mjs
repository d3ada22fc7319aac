import { describe, showLatency } from "./hood.mjs";
import { at, card, chip, emptied } from "./view.mjs";

const SHELF_SIZE = 24;
let history;
let recommender;
let takesSearch;
let shelfSize = SHELF_SIZE;
let asked = 0;
const latencies = [];

function pick(id) {
  history.add(id);
  return show();
}

function remove(position) {
  history.removeAt(position);
  return show();
}

/** Show the list as soon as it is ranked and its reasons when they come; what was overtaken is never shown. */
async function show() {
  const turn = ++asked;
  const query = at("text").value;
  const ranked = recommender.recommend(history.ids, { query });
  showPicks(); // while the model works
  showShelf(takesSearch ? "" : query);
  const ranking = await ranked;
  if (turn !== asked) return;
  showList(ranking.items.map(({ id }) => id));
  latencies.push(ranking);
  showLatency(latencies);
  const reasons = await recommender.explain(history.ids, ranking.items.map(({ id }) => id), { query });
  if (turn === asked) showReasons(reasons);
}

function showPicks() {
  const { title } = recommender.catalogue;
  emptied(at("history")).append(...history.ids.map((id, place) => chip(title(id), () => remove(place))));
  at("empty").hidden = history.ids.length > 0;
  at("clear").disabled = at("export").disabled = history.ids.length === 0;
}

const cards = (ids) => ids.map((id) => card(recommender.catalogue, id, () => pick(id)));

function showList(ids) {
  emptied(at("list")).append(...cards(ids));
}

function showReasons(reasons) {
  const notes = at("list").querySelectorAll(".because");
  reasons.forEach(([strongest], place) => {
    notes[place].textContent = strongest ? `because of ${recommender.catalogue.title(strongest.id)}` : "";
  });
}

let onShelf;
function showShelf(text) {
  const wanted = `${text} ${shelfSize}`;
  if (onShelf === wanted) return; // a pick changes nothing here
  onShelf = wanted;
  const ids = text.trim() ? recommender.catalogue.search(text) : recommender.items;
  emptied(at("shelf")).append(...cards(ids.slice(0, shelfSize)));
  at("nothing").hidden = ids.length > 0;
  at("more").hidden = ids.length <= shelfSize;
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([history.exportLog()], { type: "text/csv" }));
  link.download = "history.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function progress({ loadedBytes, totalBytes }) {
  at("status").textContent = `Loading the model … ${megabytes(loadedBytes)} of ${megabytes(totalBytes)} MB`;
  at("progress").value = loadedBytes / totalBytes;
}

async function embedded() {
  try {
    return await import("./edgepack/index.mjs");
  } catch {
    throw new Error("No model is embedded here yet. Run: edgepack embed BUNDLE --into THIS_FOLDER");
  }
}

function listen() {
  at("text").addEventListener("input", show);
  at("search").addEventListener("submit", (event) => event.preventDefault());
  at("clear").addEventListener("click", () => {
    history.clear();
    return show();
  });
  at("export").addEventListener("click", download);
  at("more").addEventListener("click", () => {
    shelfSize += SHELF_SIZE;
    showShelf(takesSearch ? "" : at("text").value);
  });
}

try {
  const { load, facts, openHistory } = await embedded();
  history = openHistory();
  takesSearch = facts.query !== null;
  recommender = await load({ onProgress: progress });
  at("notice").textContent = recommender.catalogue.notice;
  at("status").hidden = at("progress").hidden = true;
  at("app").hidden = false;
  listen();
  await show();
  await describe(recommender, facts);
} catch (error) {
  at("progress").hidden = true;
  at("status").textContent = error.message;
  at("status").className = "bad";
  at("status").setAttribute("role", "alert");
}
await navigator.serviceWorker?.register("sw.js").catch(() => {}); // without one the page needs the network
document.body.dataset.ready = "true";
