// Search text -> the ids of `query`. edgepack/data/query.py is the specification and explains each step.

const MARKS = [[0x0300, 0x036f], [0xfe00, 0xfe0f]];
const DECOMPOSED = [[0x00c0, 0x024f], [0x0370, 0x03f8], [0x0400, 0x04ff], [0x1e00, 0x1fff], [0xff01, 0xff5e]];
const SEPARATORS = [[0x0080, 0x00bf], [0x00d7, 0x00d7], [0x00f7, 0x00f7], [0x2000, 0x206f], [0x3000, 0x303f]];
const LOWER = [[0x41, 0x5a, 32], [0xc0, 0xde, 32], [0x391, 0x3a9, 32], [0x400, 0x40f, 80], [0x410, 0x42f, 32]];
const SPELLED = {
  ß: "ss", ẞ: "ss", æ: "ae", ð: "d", ø: "o", þ: "th", Đ: "d", đ: "d", Ħ: "h", ħ: "h",
  ı: "i", Ł: "l", ł: "l", Ŋ: "n", ŋ: "n", Œ: "oe", œ: "oe", Ŧ: "t", ŧ: "t", ς: "σ",
};
const BEGIN = 2;
const END = 3;
export const SPEC = "edgepack-ngrams-1";

const within = (point, blocks) => blocks.some(([first, last]) => first <= point && point <= last);
const points = (text) => Array.from(text, (character) => character.codePointAt(0));

function folded(point) {
  if (within(point, MARKS)) return [];
  const character = String.fromCodePoint(point);
  const parts = within(point, DECOMPOSED) ? points(character.normalize("NFKD")) : [point];
  return parts.filter((part) => !within(part, MARKS)).flatMap((part) => spelled(lower(part)));
}

function lower(point) {
  const block = LOWER.find(([first, last]) => first <= point && point <= last && point !== 0xd7);
  return block ? point + block[2] : point;
}

function spelled(point) {
  const written = SPELLED[String.fromCodePoint(point)];
  return written === undefined ? [point] : points(written);
}

function separates(point) {
  if (point < 0x80) return !((point >= 0x30 && point <= 0x39) || (point >= 0x61 && point <= 0x7a));
  return within(point, SEPARATORS);
}

function markedWords(text, limit) {
  const words = [[]];
  for (const point of points(text).slice(0, limit).flatMap(folded)) {
    if (separates(point)) words.push([]);
    else words.at(-1).push(point);
  }
  return words.filter((word) => word.length).map((word) => [BEGIN, ...word, END]);
}

function* ngrams(text, { sizes, text_limit }) {
  const words = markedWords(text, text_limit);
  yield* words;
  for (const size of sizes)
    for (const word of words)
      for (let start = 0; start + size <= word.length; start++) yield word.slice(start, start + size);
}

function hash(gram, seed) {
  let value = 2166136261 ^ seed;
  for (const point of gram)
    for (const byte of [point & 255, (point >> 8) & 255, point >> 16]) value = Math.imul(value ^ byte, 16777619);
  return value >>> 0;
}

/** The ids of a search text, Int32Array [length]; `hashing` is `contract.query` of the manifest. */
export function hashQuery(text, hashing) {
  if (hashing.spec !== SPEC) throw new Error(`This app hashes search text by ${SPEC}, the model by ${hashing.spec}.`);
  const ids = new Set();
  for (const gram of ngrams(text, hashing)) ids.add(1 + (hash(gram, hashing.seed) % hashing.buckets));
  const row = new Int32Array(hashing.length);
  row.set([...ids].slice(0, hashing.length));
  return row;
}
