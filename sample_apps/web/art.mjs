// A picture for every product, drawn from its words, for a sample shop has no photographs.

const SVG = "http://www.w3.org/2000/svg";
const CELL = 40;
const [COLUMNS, ROWS] = [4, 2];
const SHAPES = [
  "M0 0A40 40 0 0 1 40 40H0Z", // a quarter of a disc
  "M0 40A20 20 0 0 1 40 40Z", // half of one
  "M20 4A16 16 0 0 1 20 36A16 16 0 0 1 20 4Z", // a whole one
  "M0 0H20A20 20 0 0 1 40 20V40H20A20 20 0 0 1 0 20Z", // a leaf
  "M0 0H40L0 40Z",
  "M0 0H40V20H0Z",
];

/** Numbers below `limit`, the same for the same text. */
function dice(text) {
  let state = 2166136261;
  for (const character of text) state = Math.imul(state ^ character.codePointAt(0), 16777619);
  return (limit) => {
    state = Math.imul(state ^ (state >>> 15), 2246822519) + 1;
    return ((state ^ (state >>> 13)) >>> 0) % limit;
  };
}

/** Four colours that go together: those of a category are its own. */
function palette(text) {
  const hue = dice(text)(360);
  return [`${hue} 55% 86%`, `${hue} 48% 58%`, `${hue + 40} 62% 70%`, `${hue - 30} 40% 34%`].map((hsl) => `hsl(${hsl})`);
}

function part(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The picture of a product: shapes of its title in the colours of its category. */
export function drawn(title, category) {
  const roll = dice(title);
  const colours = palette(category || title);
  const width = COLUMNS * CELL;
  const height = ROWS * CELL;
  const view = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" };
  const picture = part("svg", view);
  picture.append(part("rect", { width, height, fill: colours[0] }));
  for (let cell = 0; cell < COLUMNS * ROWS; cell++) {
    const [x, y] = [(cell % COLUMNS) * CELL, Math.floor(cell / COLUMNS) * CELL];
    const transform = `translate(${x} ${y}) rotate(${90 * roll(4)} ${CELL / 2} ${CELL / 2})`;
    picture.append(part("path", { d: SHAPES[roll(SHAPES.length)], fill: colours[1 + roll(3)], transform }));
  }
  return picture;
}
