// The last changes and the last lines of the log, asked for while they are unfolded only.
const TAIL = 200, marks = { insert: "+", update: "~", delete: "−" };
let stream = null;

async function follow_changes() {
  if (stream) return;
  stream = new AbortController();
  try {
    const reader = (await ask("changes.ndjson", { signal: stream.signal })).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    at("changes").replaceChildren();
    show("changesNote", "as they pass");
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      const lines = (rest + read.value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) take(JSON.parse(line));
    }
    show("changesNote", "ended; fold and unfold it to go on");
  } catch (error) { if (error.name !== "AbortError") refused("changesNote", error); }
  stream = null;
}
function take(entry) {
  if (entry.error) return show("changesNote", entry.error);
  for (const change of entry.changes) {
    at("changes").prepend(make("li", { class: { insert: "good", delete: "bad" }[change.kind] || "none" }, null,
      make("span", {}, clock(entry.at)), make("span", {}, "node " + entry.origin), make("span", {}, (marks[change.kind] || "") + " " + change.table + " " + key_text(change.key) + " " + changed(change))));
  }
  while (at("changes").children.length > TAIL) at("changes").lastChild.remove();
}
function changed({ kind, key, before, after }) {
  const keys = new Set(key.map(([name]) => name)), was = new Map(before.map(([name, , text]) => [name, text]));
  if (kind === "delete") return "";
  const cells = after.filter(([name, , text]) => !keys.has(name) && (kind === "insert" || was.get(name) !== text));
  return cells.map(([name, , text]) => name + "=" + (kind === "update" && was.has(name) ? first_line(was.get(name)) + " → " : "") + first_line(text)).join(", ");
}
async function hear_log() {
  try {
    const lines = (await (await ask("log.json")).json()).lines.reverse();
    fill(at("log"), lines, () => "li", (li, line) => {
      li.className = { warning: "warn", error: "bad", critical: "bad" }[line.level] || "none";
      spans(li, [line.at ? clock(Date.parse(line.at) / 1000) : "", line.level, line.text]);
    });
    show("logNote", "the newest first");
  } catch (error) { refused("logNote", error); }
}
at("changesCard").addEventListener("toggle", () => { if (at("changesCard").open) follow_changes(); else stream?.abort(); });
at("logCard").addEventListener("toggle", () => { if (at("logCard").open) hear_log(); });
