// The pieces that the page is made of.
import { drawn } from "./art.mjs";

export const at = (id) => document.getElementById(id);

function made(kind, className, text = "") {
  const element = document.createElement(kind);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Empty a list; the focus, if it was in there, goes to what takes its place. */
export function emptied(list) {
  const hadFocus = list.contains(document.activeElement);
  list.replaceChildren();
  if (hadFocus) queueMicrotask(() => (list.querySelector("button") ?? at("text")).focus());
  return list;
}

function button(text, label, onClick) {
  const element = made("button", "", text);
  element.type = "button";
  element.setAttribute("aria-label", label);
  element.addEventListener("click", onClick);
  return element;
}

export function chip(title, onClick) {
  const item = made("li", "");
  item.append(button(title, `Remove ${title}`, onClick));
  return item;
}

/** One place of a plain list; `mark` says what is special about it, "" nothing. */
export function ranked(title, mark) {
  const item = made("li", mark === "only here" ? "alone" : "", title);
  if (mark) item.append(" ", made("span", "mark", mark));
  return item;
}

export function card(catalogue, id, onClick) {
  const title = catalogue.title(id);
  const price = spelled(catalogue.price(id), catalogue.currency);
  const item = made("li", "card");
  const tile = made("span", "tile");
  tile.append(drawn(title, catalogue.category(id)));
  const about = made("span", "about");
  about.append(made("span", "category", catalogue.category(id)), made("span", "price", price));
  item.append(tile, button(title, `Add ${title}${price && `, ${price}`}`, onClick), about, made("span", "because"));
  return item;
}

function spelled(price, currency) {
  if (price === null) return "";
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(price);
  } catch {
    return price.toFixed(2); // no currency, or none that this browser knows
  }
}
