// The shopper's history, in this browser alone.

const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function read(storage, key) {
  try {
    const ids = JSON.parse(storage.getItem(key));
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : [];
  } catch {
    return []; // storage is switched off, or somebody else wrote there
  }
}

/** Open the history that this browser keeps under `key`; where it keeps nothing, one for this visit. */
export function openHistory(key = "edgepack-history", storage = globalThis.localStorage) {
  let ids = read(storage, key);
  const keep = (changed) => {
    ids = changed;
    try {
      storage.setItem(key, JSON.stringify(ids));
    } catch {
      // full or switched off: the visit goes on without
    }
  };
  return {
    get ids() {
      return ids;
    },
    add: (id) => keep([...ids, id]),
    removeAt: (position) => keep(ids.filter((_, place) => place !== position)),
    clear: () => keep([]),
    // A new name in every export, and places instead of times: two exports cannot be joined to one person.
    exportLog: () => {
      const user = `device-${crypto.randomUUID()}`;
      return ["user,item,time", ...ids.map((id, place) => `${user},${field(id)},${place + 1}`), ""].join("\n");
    },
  };
}
