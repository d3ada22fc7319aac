// A second model, fetched when it is asked for: its list beside this one's.
import { quantile, size } from "./hood.mjs";
import { at, ranked } from "./view.mjs";

const overlaps = []; // of the lists since the second model is there
const waits = { own: [], other: [] };
let other;
let latest; // what was asked last, and the shop's answer

/** Offer the second model; `title` names an item, `shown` is what the page shows now. */
export function offer(facts, loadCompared, title, shown) {
  const model = facts.compared;
  latest = shown;
  const fetched = Object.keys(model.files).filter((name) => !(name in facts.files));
  const bytes = fetched.reduce((sum, name) => sum + model.files[name].bytes, 0);
  at("other-name").textContent = `${model.recipe}, ${model.format}`;
  at("own-name").textContent = `This page: ${facts.recipe}, ${facts.format}`;
  at("beside-note").textContent = `${model.format}: ${size(bytes)}, fetched only when you ask for it.`;
  at("compare").addEventListener("click", () => bring(loadCompared, title));
  at("beside").hidden = false;
}

async function bring(loadCompared, title) {
  at("compare").disabled = true;
  at("beside-note").textContent = "Loading the second model …";
  try {
    const loaded = await loadCompared();
    other = async (asked) => {
      const options = { query: asked.query, k: asked.items.length };
      show(asked, await loaded.recommend(asked.ids, options), title);
    };
    await compare(latest);
    at("beside-heading").focus(); // the button goes
    at("compare").hidden = true;
    at("pair").hidden = false;
  } catch ({ message }) {
    at("beside-note").textContent = message;
    at("compare").disabled = false;
  }
}

/** Ask the second model, if it is there, for what the shop was `asked`: { ids, query } and the answer to it. */
export async function compare(asked) {
  latest = asked;
  await other?.(asked);
}

function show(asked, answer, title) {
  if (asked !== latest) return;
  const [own, others] = [asked.items, answer.items].map((items) => items.map(({ id }) => id));
  overlaps.push(own.filter((id) => others.includes(id)).length / own.length);
  waits.own.push(asked.inferenceMs);
  waits.other.push(answer.inferenceMs);
  at("own").replaceChildren(...own.map((id, place) => ranked(title(id), moved(place, others.indexOf(id)))));
  at("other").replaceChildren(...others.map((id, place) => ranked(title(id), moved(place, own.indexOf(id)))));
  at("beside-note").textContent = `${Math.round(own.length * overlaps.at(-1))} of ${own.length} are in both lists. ${soFar()}`;
}

function soFar() {
  const mean = overlaps.reduce((sum, overlap) => sum + overlap, 0) / overlaps.length;
  const [here, there] = [waits.own, waits.other].map((each) => quantile(each, 0.5).toFixed(1));
  return `Overlap of ${overlaps.length === 1 ? "this list" : `${overlaps.length} lists`} ${mean.toFixed(2)}; p50 of the models ${here} and ${there} ms.`;
}

/** How a place differs from the other list's. */
function moved(place, elsewhere) {
  if (elsewhere < 0) return "only here";
  if (elsewhere === place) return "";
  return elsewhere > place ? `${elsewhere - place} up` : `${place - elsewhere} down`;
}
