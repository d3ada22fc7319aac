// Code that was checked as bytes, run as a module: the network is not asked again.

export const addressOf = (...parts) => URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));

/** Import the module whose text is `parts` (strings and ArrayBuffers), or the one at an address (a URL). */
export async function imported(...parts) {
  if (parts[0] instanceof URL) return import(/* webpackIgnore: true */ /* @vite-ignore */ parts[0].href);
  const address = addressOf(...parts);
  try {
    return await import(/* webpackIgnore: true */ /* @vite-ignore */ address);
  } finally {
    URL.revokeObjectURL(address);
  }
}
