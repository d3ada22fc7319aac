import { load } from "./recommender.mjs";

const SHELF_SIZE = 16;
const at = (id) => document.getElementById(id);
const history = [];
let recommender;

function button(index, onClick, verb) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = recommender.vocabulary[index];
  made.setAttribute("aria-label", `${verb} ${recommender.vocabulary[index]}`);
  made.addEventListener("click", onClick);
  return made;
}

function listItem(...children) {
  const made = document.createElement("li");
  made.append(...children);
  return made;
}

const add = (index) => () => {
  history.push(index);
  return show();
};

// One after the other: a session runs one inference at a time, and typing is faster.
let shown = Promise.resolve();
const show = () => (shown = shown.then(rank));

async function rank() {
  const focused = document.activeElement?.closest("ol");
  const { items, milliseconds } = await recommender.recommend(history, { text: at("text").value });
  const clicked = history.map((index, at) => listItem(button(index, () => remove(at), "Remove")));
  at("history").replaceChildren(...clicked);
  at("empty").hidden = history.length > 0;
  at("clear").disabled = history.length === 0;
  at("list").replaceChildren(...items.map((index) => listItem(button(index, add(index), "Add"))));
  at("latency").textContent = `Ranked on this device in ${milliseconds.toFixed(1)} ms`;
  focused?.querySelector("button")?.focus(); // the button that was pressed is gone
}

function remove(position) {
  history.splice(position, 1);
  return show();
}

function describe({ same, total, passed }) {
  const { manifest, modelBytes, vocabulary } = recommender;
  const tested = at("self-test");
  tested.textContent = `${passed ? "✓" : "✗"} ${same} of ${total} recorded lists reproduced`;
  tested.className = passed ? "good" : "bad";
  const kilobytes = Math.max(1, Math.round(modelBytes / 1000)).toLocaleString("en");
  at("model").textContent =
    `${manifest.model_file} · ${kilobytes} kB · ${(vocabulary.length - 1).toLocaleString("en")} items · hashes checked`;
}

try {
  recommender = await load();
  describe(await recommender.selfTest());
  const shelf = Math.min(SHELF_SIZE, recommender.vocabulary.length - 1);
  for (let index = 1; index <= shelf; index++) at("shelf").append(listItem(button(index, add(index), "Add")));
  at("search").hidden = !recommender.manifest.contract.query;
  at("text").addEventListener("input", show);
  at("clear").addEventListener("click", () => {
    history.length = 0;
    return show();
  });
  await show();
  at("status").hidden = true;
  at("app").hidden = false;
} catch (error) {
  at("status").textContent = error.message;
  at("status").className = "bad";
  at("status").setAttribute("role", "alert");
}
document.body.dataset.ready = "true";
