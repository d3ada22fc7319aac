// Runs and times an artifact under the runtime that ships, the same way in Node and in a page.
// A job: {mode, runtime, adapter, model, files: {part: path}, inputs: {name: {file, width}}, rows, scores}; `host` brings the I/O.

// An int32 identity graph: opening it compiles and starts onnxruntime, and nothing else; LiteRT.js starts at once.
const IDENTITY = {
  "onnxruntime-web":
    "CAc6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgGEgQKAggBYg8KAXkSCgoICAYSBAoCCAFCBAoAEA0=",
};
const BATCH_MS = 12; // at least this much work per sample: throttling is a duty cycle
const WARM_UP_MS = 300;
const SAMPLES = 60;
const SAMPLING_MS = 4000;
const FEWEST_SAMPLES = 15;
const WRITE_BYTES = 8 << 20;

// onnxruntime's heap is created through this constructor and never shrinks, so its last size is its peak.
const memories = [];
const NativeMemory = WebAssembly.Memory;
WebAssembly.Memory = class extends NativeMemory {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};
const heapBytes = () => memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);

export class SignatureError extends Error {}

async function startRuntime(job, host) {
  const started = performance.now();
  const { start } = await import(job.adapter);
  const files = {};
  for (const [part, path] of Object.entries(job.files)) files[part] = await host.read(path);
  const runtime = await start(files, host.imported);
  const identity = IDENTITY[job.runtime];
  if (identity) await (await runtime.open(Uint8Array.from(atob(identity), (c) => c.charCodeAt(0)))).release();
  return [runtime, performance.now() - started];
}

async function openModel(runtime, job, host) {
  const started = performance.now();
  const model = await runtime.open(await host.read(job.model));
  const elapsed = performance.now() - started;
  checkSignature(model, job);
  return [model, elapsed];
}

function checkSignature(model, job) {
  for (const { name, type, shape } of model.inputs) {
    const given = job.inputs[name];
    if (!given) throw new SignatureError(`its input '${name}' is none of ${Object.keys(job.inputs)}`);
    if (type !== "int32" || shape.length !== 2 || shape[0] !== 1 || shape[1] !== given.width)
      throw new SignatureError(`its input '${name}' is ${type} [${shape}]; given is int32 [1,${given.width}]`);
  }
  const scores = model.outputs.find(({ name }) => name === "scores");
  if (!scores) throw new SignatureError(`its outputs are '${model.outputs.map(({ name }) => name)}', none is 'scores'`);
  if (scores.type !== "float32") throw new SignatureError(`its output 'scores' is ${scores.type}`);
}

async function readInputs(model, job, host) {
  const inputs = [];
  for (const { name } of model.inputs) {
    const { file, width } = job.inputs[name];
    inputs.push({ name, width, data: new Int32Array(await host.read(file)) });
  }
  return inputs;
}

// One recommendation as an app makes it: tensors made, graph run, scores read back.
function runRow(model, inputs, row) {
  const rows = {};
  for (const { name, width, data } of inputs) rows[name] = data.slice(row * width, (row + 1) * width);
  return model.run(rows);
}

async function runAll(run, rows, job, host) {
  let waiting = [];
  let bytes = 0;
  let width = 0;
  for (let row = 0; row < rows; row++) {
    const scores = await run(row);
    width = scores.length;
    waiting.push(Float32Array.from(scores));
    bytes += scores.byteLength;
    if (bytes < WRITE_BYTES && row + 1 < rows) continue;
    await host.append(job.scores, await new Blob(waiting).arrayBuffer());
    waiting = [];
    bytes = 0;
  }
  return { width };
}

const breathe = () => new Promise((resolve) => setTimeout(resolve, 0));

async function timeRuns(run, rows, host) {
  const begin = performance.now();
  await run(0);
  const first_ms = performance.now() - begin;
  const warmUp = performance.now();
  let runs = 0;
  while (runs < 10 || performance.now() - warmUp < WARM_UP_MS) await run(runs++ % rows);
  const batch_runs = Math.max(1, Math.ceil((BATCH_MS * runs) / (performance.now() - warmUp)));
  const samples_ms = [];
  const cpuBefore = host.cpuMs();
  const started = performance.now();
  while (samples_ms.length < SAMPLES) {
    if (samples_ms.length >= FEWEST_SAMPLES && performance.now() - started > SAMPLING_MS) break;
    const at = performance.now();
    for (let i = 0; i < batch_runs; i++) await run((samples_ms.length * batch_runs + i) % rows);
    samples_ms.push((performance.now() - at) / batch_runs);
    await breathe();
  }
  const cpu_ms = (host.cpuMs() - cpuBefore) / (samples_ms.length * batch_runs);
  return { first_ms, samples_ms, batch_runs, cpu_ms };
}

/** Milliseconds (median of 7, after 3 that let the compiler settle) of 20 million steps of integer arithmetic: how fast this machine is now. */
export function benchmark() {
  const times = [];
  for (let round = 0; round < 10; round++) {
    const started = performance.now();
    let state = round;
    for (let i = 0; i < 20_000_000; i++) state = (Math.imul(state, 1664525) + 1013904223) | 0;
    times.push(performance.now() - started + (state === 0 ? 1e-9 : 0));
  }
  return times.slice(3).sort((a, b) => a - b)[3];
}

/** Do a job; the answer is {error, kind} when the artifact cannot be run. */
export async function perform(job, host) {
  try {
    const [runtime, runtime_load_ms] = await startRuntime(job, host);
    const [model, load_ms] = await openModel(runtime, job, host);
    const inputs = await readInputs(model, job, host);
    const run = (row) => runRow(model, inputs, row);
    const did = job.mode === "time" ? await timeRuns(run, job.rows, host) : await runAll(run, job.rows, job, host);
    const peak_memory_bytes = heapBytes() + (runtime.heapBytes?.() ?? 0);
    return { ...did, runtime_load_ms, load_ms, peak_memory_bytes };
  } catch (error) {
    return { error: String(error?.message ?? error), kind: error instanceof SignatureError ? "signature" : "run" };
  }
}
