// The page: asks the node each second how it is, and less often for the rest.
const number = (id, n, tone) => { show(id, count(n)); at(id).className = n ? tone : ""; };
function state(text, tone, why) {
  show("state", text); at("state").className = tone;
  at("why").className = tone === "good" ? "none" : tone;
  fill(at("why"), why, () => "li", spans);
  document.title = (tone === "bad" ? "! " : "") + "node " + at("node").textContent + " · HarmonyLite";
}
// Trouble is shown once: the cause, and what waits because of it.
const causes = s => s.trouble.map(t => [(t.part ? t.part + ": " : "") + t.why + (t.seconds >= 5 ? " (for " + span(t.seconds) + ")" : ""),
  ...(t.because.length ? ["because of it: " + t.because.join(", ")] : [])]);

let last = null, heard = null;
function draw(s) {
  show("node", s.node_id || "without a name"); show("file", (s.database ? s.database + ", " : "") + s.db_path);
  at("databases").hidden = !s.databases.length;
  fill(at("databases"), s.databases, () => "a", (a, d) => {
    say(a, d.name); put(a, "href", "../" + encodeURIComponent(d.name) + "/"); put(a, "aria-current", d.name === s.database ? "page" : "false");
    a.className = d.ready ? "good" : d.healthy ? "warn" : d.starting ? "none" : "bad"; put(a, "title", d.ready ? "healthy" : d.healthy ? "waiting" : d.starting ? "starting" : "unhealthy");
  });
  if (s.status === "starting") state("starting", "none", causes(s));
  else if (s.status !== "healthy") state("unhealthy", "bad", causes(s));
  else if (!s.ready) state(s.caught_up ? "waiting" : "catching up", "warn", causes(s));
  else state("healthy", "good", causes(s));
  const lag = s.shards.reduce((sum, x) => sum + x.lag_messages, 0), oldest = Math.max(0, ...s.shards.map(x => x.lag_seconds));
  number("lag", lag, aged(oldest)); show("oldest", (lag === 1 ? "message" : "messages") + (lag ? ", " + short(oldest) : ""));
  number("pending", s.pending_rows, aged(s.pending_seconds)); show("waiting", s.pending_seconds ? "to publish, for " + span(s.pending_seconds) : "to publish");
  number("held", s.held_rows, "warn"); number("conflicts", s.counters.conflicts, "");
  show("journal", "since the start");
  const bound = v => v === null ? "> 60 s" : "≤ " + short(v);
  show("p50", s.latency.count ? bound(s.latency.p50) : "–");
  show("p99", s.latency.count ? "median; p99 " + bound(s.latency.p99) : "nothing applied yet");
  draw_cluster(s);
  draw_parts(s);
  if (!s.details || !tables_known) rows("tables", s.tables.map(name => ["", name, "–", "–", "–"]));
  show("tableHead", "Tables (" + count(s.tables_tracked) + ")");
  // A list that scrolls must be reachable without a mouse.
  at("tableBox").tabIndex = at("tableBox").scrollHeight > at("tableBox").clientHeight ? 0 : -1;
  const warnings = Object.entries(s.warnings);
  at("warningCard").hidden = !warnings.length; list("warnings", warnings.map(([about, text]) => about + ": " + text));
  at("progressCard").hidden = !s.progress;
  if (s.progress) {
    const [doing, done, total] = s.progress;
    show("doing", doing + ", " + mega(done) + " of " + mega(total) + " MB"); at("progress").max = total || 1; at("progress").value = done;
  }
  for (const id of ["hourCard", "conflictCard", "snapshotCard", "verifyCard", "changesCard", "logCard"]) at(id).hidden = !s.details;
  may_act = s.acts && Boolean(token);
  at("save").hidden = at("verify").hidden = !may_act; at("lock").hidden = !token;
  if (s.acts && !token) at("login").hidden = false;
  show("version", "HarmonyLite " + s.version); show("nats", s.nats_connected ? "NATS " + s.nats_server : "NATS not connected");
  show("uptime", "up " + span(s.uptime_seconds));
}
function draw_parts(s) {
  const parts = Object.entries(s.parts), stuck = parts.filter(([, p]) => p.state === "waiting" || p.state === "failed");
  rows("parts", parts.map(([name, p]) => [tones[p.state], name, [p.state, p.reason], span(p.seconds)]));
  show("partNote", stuck.length ? stuck.length + " of " + parts.length + " wait or failed" : times(parts.length, "part", "parts") + ", all well"); fold("partCard", stuck.length > 0);
  rows("shards", s.shards.map(x => ["", x.shard, count(x.position), count(x.last), { text: count(x.lag_messages), late: aged(x.lag_seconds) }, short(x.lag_seconds)]));
  const late = s.shards.filter(x => aged(x.lag_seconds));
  show("shardNote", late.length ? late.length + " of " + s.shards.length + " behind" : times(s.shards.length, "stream", "streams") + ", read to the end"); fold("shardCard", late.length > 0);
  const figures = Object.entries(s.server);
  at("serverCard").hidden = !figures.length;
  if (figures.length) {
    rows("server", figures.map(([name, v]) => ["", name.replaceAll("_", " ").replace(" bytes", ""), name.endsWith("bytes") ? bytes(v) : name === "cpu_ratio" ? (100 * v).toFixed(1) + " %" : count(v)]));
    show("serverNote", times(s.server.cluster_peers ?? 0, "other server", "other servers") + ", " + bytes(s.server.stored_bytes ?? 0) + " in streams");
  }
}

let tables_known = false;
async function hear_details() {
  let d;
  try { d = await (await ask("details.json", { seconds: 20 })).json(); }
  catch (error) { tables_known = false; show("tableNote", "row counts: " + error.message); if (error.login) refused("said", error); return; }
  known = d.nodes || known;
  if (last) draw_cluster(last);
  const failed = name => d.errors[name] || "";
  tables_known = Boolean(d.tables);
  show("tableNote", failed("tables"));
  if (d.tables) rows("tables", d.tables.map(t => ["warn", t.name, t.rows === null ? "–" : (t.exact ? "" : "≈ ") + count(t.rows), count(t.pending), { text: count(t.held), late: t.held ? "warn" : "" }]));
  if (d.snapshots) {
    const [newest] = d.snapshots.listed;
    show("snapshotNote", newest ? count(d.snapshots.count) + " in the store; the next " + (d.snapshots.next ? "by " + day(d.snapshots.next) : "when it is needed") : "none yet");
    rows("snapshots", d.snapshots.listed.map(x => ["", ago(x.at), x.node, bytes(x.bytes), x.size ? bytes(x.size) : "–"]));
  } else show("snapshotNote", failed("snapshots"));
  show("verified", d.verified.at ? d.verified.said + ", " + ago(d.verified.at) : "Not compared since the start.");
}

let asked = { hour: 0, details: 0, conflicts: 0, log: 0 };
async function hear(s) {
  const now = performance.now() / 1000, due = (what, every) => { if (now - asked[what] < every && asked[what]) return false; asked[what] = now; return true; };
  const jobs = [];
  if (s.details && due("hour", 5)) jobs.push(hear_hour());
  if (s.details && due("details", 6)) jobs.push(hear_details());
  if (s.details && (due("conflicts", 10) || (last && last.counters.conflicts !== s.counters.conflicts))) jobs.push(hear_conflicts());
  if (s.details && at("logCard").open && due("log", 3)) jobs.push(hear_log());
  await Promise.allSettled(jobs);
}

async function ask_status() {
  let s, why;
  try { s = await (await ask("status.json", { seconds: 5 })).json(); }
  catch (error) {
    if (error.login) { refused("said", error); return state("locked", "none", [["this page needs the node's token: [page] token of its configuration"]]); }
    why = error.name === "TimeoutError" ? "not within 5 s" : error.code ? error.message : "no connection";
  }
  at("main").className = s ? "" : "gone";
  if (!s) {
    last = null;
    return state("no answer", "bad", [["the node does not answer (" + why + "): it has stopped, or the way to it is cut; it is asked again "
      + "every second" + (heard ? ", and what is below is from " + clock(heard) : "")]]);
  }
  if (heard && at("version").textContent !== "HarmonyLite " + s.version) return location.reload(); // its page may be another, too
  heard = Date.now() / 1000;
  draw(s);
  hear(s);
  last = s;
}

let timer = 0, asking = false;
async function look() {
  if (!asking) {
    asking = true;
    try { await ask_status(); } catch (error) {
      console.error(error);
      state("unclear", "bad", [["this page can't show what the node says (" + error.message + "): load it again"]]);
    }
    asking = false;
  }
  clearTimeout(timer);
  timer = setTimeout(look, document.hidden ? 10000 : 1000);
}
at("login").addEventListener("submit", event => {
  event.preventDefault();
  token = at("token").value.trim(); sessionStorage.setItem("token", token);
  at("token").value = ""; at("login").hidden = true; show("said", "");
  asked = { hour: 0, details: 0, conflicts: 0, log: 0 };
  look();
});
at("lock").addEventListener("click", () => { token = ""; sessionStorage.removeItem("token"); look(); });
at("save").addEventListener("click", () => doing(at("save"), async () => { await ask("actions/snapshot", { body: {}, seconds: 600 }); asked.details = 0; }));
at("verify").addEventListener("click", () => doing(at("verify"), async () => { await ask("actions/verify", { body: {}, seconds: 60 }); asked.details = 0; }));
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => { draw_plots(); if (last) draw_cluster(last); }, 100); });
document.addEventListener("visibilitychange", look);
look();
