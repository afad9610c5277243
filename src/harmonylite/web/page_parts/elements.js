// Elements: found, filled, kept.
const SVG = document.querySelector("svg").namespaceURI;
const at = id => document.getElementById(id);
// Everything from the node goes through textContent: a table may be called <script>. Characters that steer are shown as such.
const clean = text => String(text).replace(/[\p{C}\u2028\u2029]/gu, "\ufffd");
const say = (e, text) => { text = clean(text); if (e.textContent !== text) e.textContent = text; };
const show = (id, text) => say(at(id), text);
const put = (e, name, value) => { value = String(value); if (e.getAttribute(name) !== value) e.setAttribute(name, value); };

// Elements stay while their number does, so that a selected text stays selected and a scrolled list where it is.
function fill(box, things, tag, draw) {
  while (box.children.length > things.length) box.lastChild.remove();
  while (box.children.length < things.length) box.append(document.createElement(tag(box.children.length)));
  things.forEach((thing, i) => draw(box.children[i], thing));
}
const list = (id, texts) => fill(at(id), texts, () => "li", say);
const spans = (box, texts) => fill(box, texts, () => "span", say);

// A row is [tone, cell, …]; a cell is a text, [text, smaller text], or { text, late: tone } or { text, link }.
const rows = (id, lines) => fill(at(id), lines, () => "tr", (tr, [tone, ...cells]) => {
  tr.className = tone;
  fill(tr, cells, i => i ? "td" : "th", (cell, found) => {
    if (Array.isArray(found)) return spans(cell, found);
    if (typeof found !== "object") found = { text: found };
    if (found.link) return linked(cell, found);
    cell.className = found.late ? "late " + found.late : "";
    say(cell, found.text);
  });
  tr.firstChild.scope = "row";
});

// Only an address of the web becomes a link: another node said it.
function web(address) {
  try { const url = new URL(address); return ["http:", "https:"].includes(url.protocol) ? url.href : ""; } catch { return ""; }
}
function linked(cell, { text, link }) {
  if (cell.firstElementChild?.tagName !== "A") cell.replaceChildren(document.createElement("a"));
  put(cell.firstChild, "href", link); put(cell.firstChild, "rel", "noreferrer");
  say(cell.firstChild, text);
}
function make(name, attributes = {}, text = null, ...inside) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== null) say(e, text);
  e.append(...inside);
  return e;
}
function draw_in(parent, name, attributes = {}, text = null) {
  const e = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== null) say(e, text);
  parent.append(e);
  return e;
}

// What a person folded or unfolded stays; everything else is open while there is something to see to.
const touched = new Set();
for (const card of document.querySelectorAll("details.card")) card.querySelector("summary").addEventListener("click", () => touched.add(card.id));
const fold = (id, trouble) => { if (!touched.has(id)) at(id).open = trouble; };

// Asking the node. The token is kept for this tab alone.
let token = sessionStorage.getItem("token") || "";
async function ask(path, { body, seconds = 10, signal } = {}) {
  const headers = token ? { authorization: "Bearer " + token } : {};
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, cache: "no-store",
    credentials: "omit", signal: signal || AbortSignal.timeout(seconds * 1000) });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(said.error || "HTTP " + answer.status), { login: Boolean(said.login), code: answer.status });
}
