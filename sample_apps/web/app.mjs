const SHELF_SIZE = 16;
const at = (id) => document.getElementById(id);
let history;
let recommender;

function button(id, onClick, verb) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = id;
  made.setAttribute("aria-label", `${verb} ${id}`);
  made.addEventListener("click", onClick);
  return made;
}

function listItem(...children) {
  const made = document.createElement("li");
  made.append(...children);
  return made;
}

function because([strongest]) {
  const made = document.createElement("span");
  made.className = "note";
  if (strongest) made.textContent = `because of ${strongest.id}`;
  return made;
}

const add = (id) => () => {
  history.add(id);
  return show();
};

// One after the other, so that a list which is out of date never replaces a newer one.
let shown = Promise.resolve();
const show = () => (shown = shown.then(rank));

async function rank() {
  const focused = document.activeElement?.closest("ol");
  const query = at("text").value;
  const { items, milliseconds } = await recommender.recommend(history.ids, { query });
  const reasons = await recommender.explain(history.ids, items.map(({ id }) => id), { query });
  const clicked = history.ids.map((id, place) => listItem(button(id, () => remove(place), "Remove")));
  at("history").replaceChildren(...clicked);
  at("empty").hidden = history.ids.length > 0;
  at("clear").disabled = at("export").disabled = history.ids.length === 0;
  at("list").replaceChildren(...items.map(({ id }, place) => listItem(button(id, add(id), "Add"), because(reasons[place]))));
  at("latency").textContent = `Ranked on this device in ${milliseconds.toFixed(1)} ms`;
  focused?.querySelector("button")?.focus(); // the button that was pressed is gone
}

function remove(position) {
  history.removeAt(position);
  return show();
}

function describe({ same, total, passed }, facts) {
  const tested = at("self-test");
  tested.textContent = `${passed ? "✓" : "✗"} ${same} of ${total} recorded lists reproduced`;
  tested.className = passed ? "good" : "bad";
  const kilobytes = Math.max(1, Math.round(facts.files[facts.model].bytes / 1000)).toLocaleString("en");
  at("model").textContent =
    `${facts.model} · ${kilobytes} kB · ${facts.itemCount.toLocaleString("en")} items · hashes checked`;
  at("kept").textContent = recommender.cached ? "Kept for the next visit" : `Not kept: ${recommender.cacheWhy}`;
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
}

async function embedded() {
  try {
    return await import("./edgepack/index.mjs");
  } catch {
    throw new Error("No model is embedded here yet. Run: edgepack embed BUNDLE --into THIS_FOLDER");
  }
}

try {
  const { load, facts, openHistory } = await embedded();
  history = openHistory();
  recommender = await load({ onProgress: progress });
  describe(await recommender.selfTest(), facts);
  for (const id of recommender.items.slice(0, SHELF_SIZE)) at("shelf").append(listItem(button(id, add(id), "Add")));
  at("search").hidden = !facts.query;
  at("text").addEventListener("input", show);
  at("clear").addEventListener("click", () => {
    history.clear();
    return show();
  });
  at("export").addEventListener("click", download);
  await show();
  at("status").hidden = true;
  at("app").hidden = false;
} catch (error) {
  at("status").textContent = error.message;
  at("status").className = "bad";
  at("status").setAttribute("role", "alert");
}
document.body.dataset.ready = "true";
navigator.serviceWorker?.register("sw.js").catch(() => {}); // without one the page works, and needs the network
