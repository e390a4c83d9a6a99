// Elements and their text. Everything shown goes through textContent; nothing is ever markup.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const el = (tag, attributes = {}, ...children) =>
  build(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// A share of something as a bar, with its text beside it. full: worth a second look.
export const meter = (share, text, full = false) => ({ share, text, full });

// What opens the explanation of a call or job when it is pressed.
export const opener = (kind, id, text = id) => ({ open: kind, id, text });

const textOf = (cell) => (cell !== null && typeof cell === "object" ? cell.text : cell) ?? "–";

function fillMeter(node, cell) {
  let box = node.firstElementChild;
  if (box === null || !box.classList.contains("meter")) {
    const bar = el("i", { "aria-hidden": "true" }, el("b"));
    box = el("span", { class: "meter" }, bar, el("span"));
    node.replaceChildren(box);
  }
  box.classList.toggle("full", cell.full);
  box.firstElementChild.firstElementChild.style.width = `${Math.round(100 * Math.min(1, cell.share))}%`;
  say(box.lastElementChild, cell.text);
}

function fillOpener(node, cell) {
  let button = node.firstElementChild;
  if (button === null) {
    button = el("button", { type: "button", class: "open" });
    node.replaceChildren(button);
  }
  if (button.dataset.id === cell.id) return;
  button.dataset.open = cell.open;
  button.dataset.id = cell.id;
  button.title = cell.id;
  say(button, cell.text);
}

function fillCell(node, cell, column) {
  const kind = (cell !== null && typeof cell === "object" && cell.kind) || "";
  const names = `${column} ${kind}`.trim();
  if (node.className !== names) node.className = names;
  if (cell !== null && typeof cell === "object" && "share" in cell) fillMeter(node, cell);
  else if (cell !== null && typeof cell === "object" && "open" in cell) fillOpener(node, cell);
  else {
    const text = String(textOf(cell));
    say(node, text);
    const title = (cell !== null && typeof cell === "object" && cell.title) || (column === "name" ? text : "");
    if (node.title !== title) node.title = title;
  }
}

// Make a table's body say these rows, changing only what is different, so that neither focus
// nor selection is lost. rows: [key, cells]; columns: the class of each; "head" makes it a header.
export function fill(table, columns, rows) {
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const [key, cells] of rows) {
    let row = known.get(key);
    if (row === undefined) {
      row = el("tr", {}, ...columns.map((column) =>
        column === "head" ? el("th", { scope: "row" }) : el("td")));
      row.dataset.key = key;
    }
    known.delete(key);
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
    columns.forEach((column, at) => fillCell(row.children[at], cells[at], column === "head" ? "name" : column));
  }
  for (const row of known.values()) row.remove();
}
