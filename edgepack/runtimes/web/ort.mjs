// onnxruntime-web, with the calls that litert.mjs has: one thread, WebAssembly alone.

const OPTIONS = { executionProviders: ["wasm"] };

/** Start it out of its files, ArrayBuffers; `imported` runs code as a module. */
export async function start({ api, wasm }, imported) {
  const ort = await imported(api);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  return { open: (model) => opened(ort, model) };
}

async function opened(ort, model) {
  const session = await ort.InferenceSession.create(new Uint8Array(model), OPTIONS);
  return {
    inputs: session.inputMetadata,
    outputs: session.outputMetadata,
    /** Int32Arrays by input name -> Float32Array; one call at a time. */
    async run(rows) {
      const feeds = {};
      for (const name of session.inputNames) feeds[name] = new ort.Tensor("int32", rows[name], [1, rows[name].length]);
      return (await session.run(feeds)).scores.data;
    },
    release: () => session.release(),
  };
}
