// The cluster as a picture: who is here, who lags, who is gone since when.
let known = [], layout = "";

// What is heard each second stands over what the list of nodes said a while ago.
function all_nodes(s) {
  const heard = new Map(s.peers.map(p => [p.node_id, p])), self = { node_id: s.node_id, state: "this node", silent_seconds: 0, version: s.version, schema: s.schema,
    lag_messages: s.shards.reduce((sum, x) => sum + x.lag_messages, 0), lag_seconds: Math.max(0, ...s.shards.map(x => x.lag_seconds)),
    pending_rows: s.pending_rows, region: s.region?.region || "", page: "", healthy: s.status === "healthy", ready: s.ready };
  const nodes = [self, ...heard.values()];
  for (const row of known) if (row.node_id !== s.node_id && !heard.has(row.node_id)) nodes.push({ silent_seconds: row.last_seen ? Date.now() / 1000 - row.last_seen : null, ...row });
  return nodes.map(n => {
    const since = n.last_heard || n.last_seen || 0, gone = n.state === "silent" || n.state === "stopped" || (n.state === "unknown" && since);
    const late = n.state === "this node" || n.state === "up" ? aged(n.lag_seconds || 0) : "";
    const begins = n.state === "up" && n.starting === true, ill = n.state === "up" && n.healthy === false && !begins;
    return { ...n, gone, since, late, ill, begins, tone: begins ? "none" : n.state === "silent" ? aged(n.silent_seconds ?? 60) || "warn" : ill ? "bad" : late || tones[n.state] || "none", link: near(n) };
  }).sort((a, b) => a.node_id.localeCompare(b.node_id, "en", { numeric: true }));
}
// An address of its own loopback is only of use to who sits at the same machine.
function near(n) {
  const link = n.page ? web(n.page) : "";
  const own = known.find(row => row.state === "this node"), local = link && ["127.0.0.1", "localhost", "[::1]"].includes(new URL(link).hostname);
  return local && (n.host !== own?.host || !["127.0.0.1", "localhost", "[::1]"].includes(location.hostname)) ? "" : link;
}
function how(n) {
  if (n.state === "this node") return n.late ? short(n.lag_seconds) + " behind" : "this node";
  if (n.gone) return (n.state === "stopped" ? "stopped " : "gone since ") + (n.since ? day(n.since) : "?");
  if (n.state === "unknown") return "not heard yet";
  if (n.begins) return "starting";
  if (n.ill) return "unhealthy";
  return n.late ? short(n.lag_seconds) + " behind" : "up";
}
const cut_short = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;

// One region: a star. Several: a box for each, with a trunk that joins them. Many nodes: rows of them.
function picture(nodes, s) {
  const box = at("picture"), width = Math.max(240, box.clientWidth), groups = new Map(), primary = s.region?.primary;
  for (const n of nodes) groups.set(n.region || "", [...(groups.get(n.region || "") || []), n]);
  const rank = region => region === "" ? 2 : region === primary ? 0 : 1;
  const regions = [...groups].sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b)), star = regions.length === 1 && nodes.length <= 10;
  const drawn = JSON.stringify([width, regions.map(([r, g]) => [r, g.map(n => [n.node_id, n.tone, how(n), n.link])]), s.region?.reachable, primary]);
  if (drawn === layout) return; // focus and hover stay while nothing is another
  layout = drawn;
  const svg = document.createElementNS(SVG, "svg");
  put(svg, "role", "group"); put(svg, "aria-label", "The nodes of the cluster and how they are");
  const under = draw_in(svg, "g"), over = draw_in(svg, "g");
  const height = star ? draw_star(under, over, nodes, width) : draw_rows(under, over, regions, width, s);
  put(svg, "viewBox", `0 0 ${width} ${height}`);
  box.replaceChildren(svg);
}
const link_class = n => "link " + n.tone + (n.gone || n.state === "unknown" ? " cut" : "");
function hub(over, x, y) {
  draw_in(over, "rect", { class: "hub", x: x - 32, y: y - 15, width: 64, height: 30, rx: 15 });
  draw_in(over, "text", { class: "sub", x, y: y + 4 }, "NATS");
}
function draw_star(under, over, nodes, width) {
  const few = nodes.length <= 2, height = few ? 190 : 320, cx = width / 2, cy = height / 2 + (few ? -8 : 6);
  const wide = Math.min(width / 2 - 66, 250), high = height / 2 - 76, first = few ? Math.PI : -Math.PI / 2;
  nodes.forEach((n, k) => {
    const angle = first + 2 * Math.PI * k / nodes.length, x = cx + wide * Math.cos(angle), y = cy + high * Math.sin(angle);
    draw_in(under, "path", { class: link_class(n), d: `M${cx} ${cy}L${x} ${y}` });
    node_at(over, n, x, y, y < cy - 30);
  });
  hub(over, cx, cy);
  return height;
}
function draw_rows(under, over, regions, width, s) {
  const left = 104, wide = 96, columns = Math.max(1, Math.floor((width - left - 20) / wide)), hubs = [];
  let top = 4;
  for (const [region, group] of regions) {
    const across = Math.min(columns, group.length), deep = Math.ceil(group.length / columns), tall = 34 + deep * 100, cy = top + 34 + (tall - 34) / 2;
    const step = Math.min(150, (width - left - 20) / across);
    draw_in(under, "rect", { class: "zone", x: 2, y: top, width: width - 4, height: tall, rx: 12 });
    if (regions.length > 1) draw_in(over, "text", { class: "sub start", x: 16, y: top + 20 }, region ? cut_short(region, 40) + (region === s.region?.primary ? " · primary region" : "") : "region not known");
    group.forEach((n, k) => {
      const x = left + step * (k % columns + 0.5) + 10, y = top + 66 + Math.floor(k / columns) * 100, rail = y - 32;
      if (region || regions.length === 1) {
        draw_in(under, "path", { class: "rail", d: `M52 ${cy}C52 ${rail} 60 ${rail} 84 ${rail}L${x} ${rail}` });
        draw_in(under, "path", { class: link_class(n), d: `M${x} ${rail}L${x} ${y}` });
      }
      node_at(over, n, x, y, false);
    });
    if (region || regions.length === 1) { hub(over, 52, cy); hubs.push([region, cy]); }
    top += tall + 10;
  }
  const [main] = hubs;
  for (const [region, y] of hubs.slice(1)) {
    const cut = s.region?.reachable === false && region === s.region.region;
    under.prepend(draw_in(under, "path", { class: "link " + (cut ? "bad cut" : "none"), d: `M52 ${main[1]}L52 ${y}` }));
  }
  return top;
}
function node_at(over, n, x, y, above) {
  const [name, words] = above ? [-44, -28] : [38, 54];
  const g = n.link ? draw_in(over, "a", { href: n.link, rel: "noreferrer", "aria-label": "node " + clean(n.node_id) + ", " + how(n) + ": its page" }) : draw_in(over, "g");
  g.classList.add(n.tone);
  draw_in(g, "title", {}, n.node_id + ": " + how(n) + (n.host ? ", host " + n.host : ""));
  draw_in(g, "circle", { class: "disc" + (n.state === "this node" ? " self" : ""), cx: x, cy: y, r: 19 });
  draw_in(g, "text", { class: "glyph", x, y: y + 4 }, n.state === "stopped" ? "■" : n.gone ? "✕" : n.state === "unknown" ? "?" : n.ill ? "!" : n.begins || n.late ? "…" : "✓");
  draw_in(g, "text", { x, y: y + name }, cut_short(n.node_id, 14));
  draw_in(g, "text", { class: "sub" + (n.late || n.gone || n.ill ? " late" : ""), x, y: y + words }, n.gone ? (n.state === "stopped" ? "stopped " : "gone ") + (n.since ? hours(n.since) : "") : how(n));
}
function draw_cluster(s) {
  const nodes = all_nodes(s), here = nodes.filter(n => n.state === "up" || n.state === "this node").length;
  const late = nodes.filter(n => n.late).length, gone = nodes.filter(n => n.state === "silent").length;
  show("clusterNote", [here === nodes.length ? times(nodes.length, "node", "nodes") + (nodes.length > 1 ? ", all here" : "") : here + " of " + nodes.length + " nodes here",
    ...(late ? [late + " behind"] : []), ...(gone ? [gone + " silent"] : [])].join(" · "));
  picture(nodes, s);
  rows("nodes", nodes.map(n => [n.tone, n.link ? { text: n.node_id, link: n.link } : n.node_id, how(n), n.state === "this node" ? "–" : n.silent_seconds === null || n.silent_seconds === undefined ? "never" : brief(n.silent_seconds) + (n.silent_seconds < 1 ? "" : " ago"),
    n.lag_messages === null || n.gone ? "–" : { text: n.lag_messages ? count(n.lag_messages) + ", " + short(n.lag_seconds || 0) : "0", late: n.late },
    n.pending_rows === null || n.gone ? "–" : count(n.pending_rows || 0), !n.schema ? "–" : n.schema === s.schema ? "same" : { text: "differs", late: "warn" }, n.version || "–"]));
  at("region").hidden = !s.region; if (s.region) show("region", where(s.region));
}
function where(r) {
  if (r.region === r.primary) return "Region " + r.region + ", the primary region";
  if (r.reachable === false) return "Region " + r.region + "; primary region " + r.primary + " can't be reached" + (r.unreachable_since ? " since " + clock(r.unreachable_since) : "") + (r.failover ? "; failed over at " + clock(r.failover_since) : "");
  return "Region " + r.region + "; primary region " + r.primary + ", " + short(r.round_trip_seconds || 0) + " away" + (r.copy_behind ? ", copy " + count(r.copy_behind) + " behind" : "");
}
