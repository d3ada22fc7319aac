// What the shop calls its items and asks for them, and how a shopper finds them by name.

const MARKS = /[\u0300-\u036f]/g;
const words = (text) =>
  text.normalize("NFKD").replace(MARKS, "").toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);

/** The catalogue of a vocabulary; without a file of titles the ids stand for them. */
export function openCatalogue(ids, told) {
  const placeOf = new Map(ids.map((id, place) => [id, place]));
  const at = (column, id) => column?.[placeOf.get(id)];
  const title = (id) => at(told?.titles, id) ?? id;
  let index; // made by the first search
  return {
    title,
    price: (id) => at(told?.prices, id) ?? null,
    category: (id) => at(told?.categories, id) ?? "",
    currency: told?.currency ?? "",
    notice: told?.notice ?? "",
    /** Ids of the items whose title has a word that begins like each of `text`, in the vocabulary's order. */
    search(text) {
      const typed = words(text);
      index ??= ids.slice(1).map((id) => [id, words(title(id))]);
      const fits = (title) => typed.every((start) => title.some((word) => word.startsWith(start)));
      return index.filter(([, title]) => fits(title)).map(([id]) => id);
    },
  };
}
