// Conflicts: the newest first, searched by the node, each opens to both values.
const drawn = new Map(), opened = new Set();
let wanted = 50, may_act = false;

async function hear_conflicts() {
  const search = at("search").value.trim();
  let found;
  try { found = (await (await ask("conflicts.json?limit=" + wanted + "&search=" + encodeURIComponent(search))).json()).conflicts; }
  catch (error) { return refused("conflictNote", error); }
  if (search !== at("search").value.trim()) return; // another question is on its way
  show("conflictNote", found.length ? search ? times(found.length, "entry", "entries") + " found" : "the newest first" : search ? "nothing found" : "no value was overruled");
  at("find").hidden = !found.length && !search;
  at("more").hidden = found.length < wanted || wanted >= 200;
  const ids = new Set(found.map(c => c.id));
  for (const [id, e] of drawn) if (!ids.has(id)) { e.remove(); drawn.delete(id); }
  found.forEach((c, i) => {
    if (!drawn.has(c.id)) drawn.set(c.id, conflict(c));
    const e = drawn.get(c.id), age = e.querySelector(".age");
    say(age, ago(c.at)); age.classList.toggle("new", Date.now() / 1000 - c.at < 3600);
    if (at("conflictList").children[i] !== e) at("conflictList").insertBefore(e, at("conflictList").children[i] || null);
    const back = e.querySelector("button"); if (back) back.hidden = !may_act;
  });
}
function conflict(c) {
  const what = make("span", { class: "what" }, null, make("b", {}, c.table + "." + c.column), " ", make("span", {}, key_text(c.key)), " ",
    make("code", {}, first_line(c.winning[1])), " ", make("span", {}, "overruled"), " ", make("code", {}, first_line(c.overruled[1])));
  const age = make("time", { class: "age", datetime: new Date(c.at * 1000).toISOString(), title: new Date(c.at * 1000).toLocaleString() });
  const about = make("div", { class: "about" }, null, make("span", {}, "Row " + c.table + " " + key_text(c.key)), make("span", {}, kinds[c.kind] || c.kind),
    make("span", {}, day(c.at) + (c.position ? ", position " + c.position : "")));
  if (c.can_put_back) about.append(put_back(c));
  const e = make("details", { class: "conflict" }, null, make("summary", {}, null, age, what), make("div", { class: "sides" }, null,
    side("in", "Stays", c.winner, c.winning), side("hot", "Overruled", c.loser, c.overruled)), about);
  e.open = opened.has(c.id);
  e.addEventListener("toggle", () => opened[e.open ? "add" : "delete"](c.id));
  return e;
}
const kinds = { update: "both changed the column", insert: "both inserted the row", delete: "changed here, deleted there", unique: "a unique value was taken", join: "differed when the file joined" };
const first_line = text => { const line = text.split("\n")[0]; return line.length > 60 ? line.slice(0, 60) + "…" : line.length < text.length ? line + "…" : line; };
const side = (ink, head, node, [type, text]) => make("div", { class: "side " + ink }, null,
  make("h3", {}, head + (node ? ", from node " + node : "") + (type === "null" ? "" : " (" + type + ")")), make("code", {}, text || "''"));

// What changes rows asks twice.
function put_back(c) {
  const button = make("button", { type: "button" }, "Put the overruled value back");
  button.addEventListener("click", () => sure(button, async () => {
    await ask("actions/put-back", { body: { conflict: c.id }, seconds: 30 });
    say(button, "Written; it travels like any change"); button.disabled = true;
  }));
  return button;
}
function sure(button, act) {
  if (!button.classList.contains("sure")) {
    const before = button.textContent;
    button.classList.add("sure"); say(button, "Press again to do it");
    setTimeout(() => { if (button.classList.contains("sure")) { button.classList.remove("sure"); say(button, before); } }, 5000);
    return;
  }
  button.classList.remove("sure");
  doing(button, act);
}
async function doing(button, act) {
  const before = button.textContent;
  button.disabled = true; say(button, "Under way…");
  try { await act(); show("said", ""); } catch (error) { refused("said", error); button.title = error.message; }
  if (button.textContent === "Under way…") { button.disabled = false; say(button, before === "Press again to do it" ? "Put the overruled value back" : before); }
}
function refused(id, error) {
  show(id, error.name === "TimeoutError" ? "no answer in time" : error.message);
  if (error.login) { at("login").hidden = false; at("lock").hidden = true; token = ""; sessionStorage.removeItem("token"); }
}
at("find").addEventListener("submit", event => event.preventDefault());
let typing = 0;
at("search").addEventListener("input", () => { clearTimeout(typing); wanted = 50; typing = setTimeout(hear_conflicts, 250); });
at("more").addEventListener("click", () => { wanted = 200; hear_conflicts(); });
