// Reads {hashing, texts: code points of each} as JSON from stdin and prints the ids of each text.
import { readFileSync } from "node:fs";
import { hashQuery } from "../../edgepack/embed/templates/web/query.mjs";

const { hashing, texts } = JSON.parse(readFileSync(0, "utf8"));
const answers = texts.map((points) => Array.from(hashQuery(points.map((p) => String.fromCodePoint(p)).join(""), hashing)));
process.stdout.write(JSON.stringify(answers));
