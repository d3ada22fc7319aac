// LiteRT.js, with the calls that ort.mjs has: one thread, WebAssembly alone, no relaxed SIMD, whose rounding is the
// processor's own, so that every browser gives the same scores.

// LiteRT.js asks this package for a script tag, which a worker has not got; the runtime is there already.
const LOADER_PACKAGE = '"@litertjs/wasm-utils"';
const LOADER = "export const createWasmLib = async (Runtime) => new Runtime(Runtime.started);";

/** Start it out of its files, ArrayBuffers; `imported` runs code as a module, made of parts of it. */
export async function start({ api, loader, wasm }, imported) {
  const told = []; // it logs every step; only what went wrong is worth a word
  const how = { wasmBinary: wasm, print() {}, printErr: (line) => told.push(line) };
  const [started, litert] = await Promise.all([
    imported(loader, "\nexport default ModuleFactory;").then(({ default: factory }) => factory(how)),
    importedApi(api, imported),
  ]);
  litert.LiteRt.started = started;
  litert.Environment.create = async () => new litert.Environment({ webGpuDevice: null });
  await litert.loadLiteRt("none.js");
  return { open: (model) => opened(litert, model, told), heapBytes: () => started.HEAPU8.byteLength };
}

async function importedApi(api, imported) {
  const loading = URL.createObjectURL(new Blob([LOADER], { type: "text/javascript" }));
  try {
    return await imported(new TextDecoder().decode(api).replace(LOADER_PACKAGE, JSON.stringify(loading)));
  } finally {
    URL.revokeObjectURL(loading);
  }
}

async function opened(litert, model, told) {
  const errors = () => told.splice(0).filter((line) => line.startsWith("ERROR"));
  const compiled = await litert
    .loadAndCompile(new Uint8Array(model), { accelerator: "wasm" })
    .catch(({ message }) => {
      throw new Error([message, ...errors().slice(-2)].join("; "));
    });
  const described = ({ name, dtype, shape }) => ({ name, type: dtype, shape: [...shape] });
  const inputs = compiled.getInputDetails().map(described);
  return {
    inputs,
    outputs: compiled.getOutputDetails().map(described),
    /** Int32Arrays by input name -> Float32Array; one call at a time. */
    async run(rows) {
      const fed = inputs.map(({ name }) => new litert.Tensor(rows[name], [1, rows[name].length]));
      told.length = 0;
      const found = await compiled.run(fed);
      const scores = await found[0].data();
      for (const tensor of [...fed, ...found]) tensor.delete(); // they live outside of the collector's reach
      const [wrong] = errors(); // it does not throw: the scores would be all zeros
      if (wrong) throw new Error(wrong);
      return scores;
    },
    release: () => compiled.delete(),
  };
}
