// The model where it runs, in a worker or in the page: item ids in, ranked ids out.

const LEAST_AGREEMENT = 0.99; // of the lists that sit too close to a tie to be equal everywhere
const MOST_REASONS = 12; // one inference each

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

/** Run code as a module out of its checked bytes, or parts of it: the network is not asked again. */
export async function imported(...parts) {
  const address = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
  try {
    return await import(/* webpackIgnore: true */ /* @vite-ignore */ address);
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function opened({ runtime, model }, bytes) {
  const { start } = await imported(bytes[runtime.adapter]);
  const files = Object.entries(runtime.files).map(([part, name]) => [part, bytes[name]]);
  return (await start(Object.fromEntries(files), imported)).open(bytes[model]);
}

/** Start the model that `facts` describes out of the folder's files, by name: ArrayBuffers that were checked. */
export async function start(facts, bytes) {
  const vocabulary = asJson(bytes[facts.vocabulary]);
  const goldens = asJson(bytes[facts.goldens]);
  const model = await opened(facts, bytes);
  const indexOf = new Map(vocabulary.map((id, index) => [id, index]));
  indexOf.delete(vocabulary[0]); // padding is no item
  const known = (ids) => ids.map((id) => indexOf.get(id)).filter((index) => index !== undefined);
  // Only a search model reads text, so only its page loads what hashes it.
  const { hashQuery } = facts.query ? await import("./query.mjs") : {};
  const hashed = (query) => (facts.query ? hashQuery(query, facts.query) : []);

  // A model runs one inference at a time, and a shopper may be faster.
  let last = Promise.resolve();
  const inTurn = (work) => (last = last.catch(() => {}).then(work));

  const scored = (history, queryIds) =>
    inTurn(async () => {
      const rows = { history: rightAligned(history, facts.historyLength) };
      if (facts.query) rows.query = leftAligned(queryIds, facts.query.length);
      const begun = performance.now();
      return { scores: await model.run(rows), inferenceMs: performance.now() - begun };
    });

  async function ranked(history, { k = goldens.k, exclude = [], queryIds }) {
    const { scores, inferenceMs } = await scored(history, queryIds);
    const out = new Set(facts.filterSeen ? [...history, ...exclude] : exclude);
    const best = topK(scores, k, (index) => out.has(index));
    return { best: best.map((index) => ({ index, score: scores[index] })), inferenceMs };
  }

  async function recommend(history, { k, exclude = [], query = "" } = {}) {
    const asked = { k, exclude: known(exclude), queryIds: hashed(query) };
    const { best, inferenceMs } = await ranked(known(history), asked);
    return {
      items: best.map(({ index, score }) => ({ id: vocabulary[index], score })),
      inferenceMs,
      unknown: history.filter((id) => !indexOf.has(id)),
    };
  }

  async function explain(history, ids, { query = "" } = {}) {
    const read = known(history).slice(-facts.historyLength);
    const { scores: whole } = await scored(read, hashed(query));
    const without = new Map();
    for (const one of [...new Set(read)].slice(-MOST_REASONS)) {
      const { scores } = await scored(read.filter((index) => index !== one), hashed(query));
      without.set(one, scores);
    }
    return ids.map((id) => {
      const index = indexOf.get(id);
      const pulls = [...without].map(([one, scores]) => ({ id: vocabulary[one], pull: whole[index] - scores[index] }));
      return pulls.filter(({ pull }) => pull > 0).sort((a, b) => b.pull - a.pull);
    });
  }

  async function selfTest() {
    const answer = async ({ history, query: queryIds = [] }) =>
      (await ranked(history, { queryIds })).best.map(({ index }) => index);
    const shares = [];
    for (const one of goldens.random ?? []) shares.push(overlap(await answer(one), one.top_k));
    const agreement = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
    let same = 0;
    for (const one of goldens.cases)
      if (String((await answer(one)).slice(0, one.top_k.length)) === String(one.top_k)) same++;
    const total = goldens.cases.length;
    return { same, total, passed: same === total && (shares.length === 0 || agreement >= LEAST_AGREEMENT) };
  }

  return { recommend, explain, selfTest, dispose: () => inTurn(() => model.release()) };
}
