import { describe, showLatency } from "./hood.mjs";
import { at, card, chip, emptied } from "./view.mjs";

const SHELF_SIZE = 20; // whole rows of five, four or two
let history;
let recommender;
let takesSearch;
let beside; // only a page with a second model loads what shows it
let shelf = []; // ids that fit what was typed
let asked = 0;
const latencies = [];
let shown; // the newest list, and what was asked for it

function pick(id) {
  history.add(id);
  return show();
}

function remove(position) {
  history.removeAt(position);
  return show();
}

function clear() {
  history.clear();
  at("picks-heading").focus(); // what had the focus can no longer be pressed
  return show();
}

/** Show the list as soon as it is ranked and its reasons when they come; what was overtaken is never shown. */
async function show() {
  const turn = ++asked;
  at("list").ariaBusy = "true";
  const query = at("text").value;
  const picked = history.ids;
  const ranked = recommender.recommend(picked, { query });
  showPicks(); // while the model works
  const ranking = await ranked;
  if (turn !== asked) return;
  const ids = ranking.items.map(({ id }) => id);
  emptied(at("list")).append(...cards(ids));
  at("ranked").textContent = `Ranked on this device: ${ranking.inferenceMs.toFixed(1)} ms for the model`;
  latencies.push(ranking);
  showLatency(latencies);
  shown = { ...ranking, ids: picked, query };
  beside?.compare(shown);
  const reasons = await recommender.explain(picked, ids, { query });
  if (turn !== asked) return;
  showReasons(reasons);
  at("list").ariaBusy = "false";
}

function showPicks() {
  const { title } = recommender.catalogue;
  emptied(at("history")).append(...history.ids.map((id, place) => chip(title(id), () => remove(place))));
  at("empty").hidden = history.ids.length > 0;
  at("clear").disabled = at("export").disabled = history.ids.length === 0;
}

const cards = (ids) => ids.map((id) => card(recommender.catalogue, id, () => pick(id)));

function showReasons(reasons) {
  const notes = at("list").querySelectorAll(".because");
  reasons.forEach(([strongest], place) => {
    notes[place].textContent = strongest ? `because of ${recommender.catalogue.title(strongest.id)}` : "";
  });
}

/** What was typed finds titles; a search model ranks by it as well. */
function search() {
  showShelf();
  return takesSearch && show();
}

function showShelf() {
  const text = at("text").value.trim();
  shelf = text ? recommender.catalogue.search(text) : recommender.items;
  emptied(at("shelf"));
  showMore();
  const count = shelf.length === 1 ? "1 product" : `${shelf.length.toLocaleString("en")} products`;
  at("found").textContent = shelf.length ? count : "No title has these words";
}

function showMore() {
  const shown = at("shelf").children.length;
  const more = cards(shelf.slice(shown, shown + SHELF_SIZE));
  at("shelf").append(...more);
  at("more").hidden = shelf.length <= shown + SHELF_SIZE;
  return more;
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
  at("text").addEventListener("input", search);
  at("search").addEventListener("submit", (event) => event.preventDefault());
  at("clear").addEventListener("click", clear);
  at("export").addEventListener("click", download);
  at("more").addEventListener("click", () => showMore()[0].querySelector("button").focus());
  addEventListener("unhandledrejection", ({ reason }) => fail(reason)); // of a pick, say
}

const REMEDIES = {
  "hash-mismatch": "If trying again does not help, the files on the server were changed: embed the bundle anew.",
  network: "Once it was loaded whole, this page needs no network.",
  "no-simd": "A newer browser shows the recommendations.",
};

/** Show why there is no shop, and what may help. */
function fail({ code, message }) {
  at("loading").classList.add("bad");
  at("loading").hidden = false;
  at("progress").hidden = true;
  at("status").textContent = message;
  at("status").setAttribute("role", "alert");
  at("remedy").textContent = REMEDIES[code] ?? "";
  at("remedy").hidden = !REMEDIES[code];
  at("again").hidden = code === "no-simd";
  at("again").addEventListener("click", () => location.reload());
}

try {
  const { load, loadCompared, facts, openHistory } = await embedded();
  history = openHistory();
  takesSearch = facts.query !== null;
  recommender = await load({ onProgress: progress });
  at("notice").textContent = recommender.catalogue.notice;
  at("loading").hidden = true;
  at("app").hidden = false;
  listen();
  const first = show();
  showShelf();
  await first;
  if (facts.compared) {
    beside = await import("./beside.mjs");
    beside.offer(facts, loadCompared, recommender.catalogue.title, shown);
  }
  await describe(recommender, facts);
} catch (error) {
  fail(error);
}
await navigator.serviceWorker?.register("sw.js").catch(() => {}); // without one the page needs the network
document.body.dataset.ready = "true";
