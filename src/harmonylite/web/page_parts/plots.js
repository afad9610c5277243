// Plots of the last hour, with axes; the node keeps the samples.
const plots = {
  rowsPlot: { title: "Rows a second", format: rate, least: 1, series: [["published", "published", "out"], ["merged", "merged", "in"]] },
  latencyPlot: { title: "Commit to applied", format: s => short(s), least: 0.005, series: [["median", "p50", "out"], ["p99", "p99", "hot"]] },
  lagPlot: { title: "Behind the stream", format: s => short(s), least: 1, series: [["oldest message", "lag_seconds", "out"]] },
  conflictPlot: { title: "Conflicts", format: n => count(Math.round(n)), least: 4, bars: true, series: [["overruled values", "conflicts", "hot"]] },
};
let hour = null, pointed = null;

// The least of 1, 2, 2.5, 5 times a power of ten that is not below `most`, and where lines go.
function scale(most, whole) {
  const power = 10 ** Math.floor(Math.log10(most)), top = (whole ? [1, 2, 4, 10] : [1, 2, 2.5, 5, 10]).find(step => step * power >= most * 0.999) * power;
  return whole && top % 2 ? [0, top] : [0, top / 2, top];
}
function plot(id) {
  const { title, format, least, bars, series } = plots[id], box = at(id), width = Math.max(200, box.clientWidth), height = 92;
  const left = 52, right = width - 8, top = 8, low = height - 18;
  const column = name => hour.names.indexOf(name), samples = hour.samples, end = samples.length ? samples.at(-1)[0] : Date.now() / 1000;
  const range = Math.min(3600, Math.max(600, samples.length ? end - samples[0][0] : 0)), start = end - range;
  const seen = samples.filter(sample => sample[0] >= start);
  const most = Math.max(least, ...seen.flatMap(sample => series.map(([, name]) => sample[column(name)] ?? 0)));
  const ticks = scale(most, bars), x = t => left + (right - left) * (t - start) / range, y = v => low - (low - top) * v / ticks.at(-1);
  if (!box.children.length) box.append(make("figcaption"), document.createElementNS(SVG, "svg"));
  const [caption, svg] = box.children, here = pointed && seen.length ? seen.reduce((a, b) => Math.abs(b[0] - pointed) < Math.abs(a[0] - pointed) ? b : a) : null;
  const shown = here || seen.at(-1);
  fill(caption, [[title, ""], ...series.map(([label, name, ink]) => {
    const value = shown?.[column(name)];
    return [label + " " + (value === null || value === undefined ? "–" : format(value)), ink];
  })], i => i ? "span" : "b", (e, [text, ink]) => { say(e, text); e.className = ink; });
  put(svg, "viewBox", `0 0 ${width} ${height}`); put(svg, "role", "img");
  put(svg, "aria-label", title + ", last hour: " + [...caption.children].slice(1).map(e => e.textContent).join(", ") + "; most " + format(most));
  svg.replaceChildren();
  for (const tick of ticks) {
    draw_in(svg, "line", { class: "rule", x1: left, x2: right, y1: y(tick), y2: y(tick) });
    draw_in(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick));
  }
  const step = range > 1800 ? 900 : range > 900 ? 300 : 120;
  for (let t = Math.ceil(start / step) * step; t <= end; t += step)
    if (x(t) > left + 14 && x(t) < right - 12) draw_in(svg, "text", { x: x(t), y: height - 4, "text-anchor": "middle" }, clock(t).slice(0, 5));
  for (const [, name, ink] of series) {
    if (bars) {
      for (const sample of seen) if (sample[column(name)]) draw_in(svg, "line", { class: "bar " + ink, x1: x(sample[0]), x2: x(sample[0]), y1: low, y2: y(sample[column(name)]) });
      continue;
    }
    let path = "", last = null, began = 0;
    const areas = [];
    for (const sample of seen) {
      const value = sample[column(name)];
      if (value === null) continue;
      const far = last === null || sample[0] - last > hour.every * 12;
      if (far && path) areas.push([began, last]);
      if (far) began = sample[0];
      path += (far ? "M" : "L") + x(sample[0]).toFixed(1) + " " + y(value).toFixed(1);
      last = sample[0];
    }
    if (path && series.length === 1 && path.lastIndexOf("M") === 0) draw_in(svg, "path", { class: "under " + ink, d: path + `L${x(last).toFixed(1)} ${low}L${x(began).toFixed(1)} ${low}Z` });
    draw_in(svg, "path", { class: "line " + ink, d: path });
  }
  if (here) draw_in(svg, "line", { class: "cross", x1: x(here[0]), x2: x(here[0]), y1: top, y2: low });
  svg.onpointermove = event => {
    const r = svg.getBoundingClientRect();
    pointed = start + range * ((event.clientX - r.left) / r.width * width - left) / (right - left);
    draw_plots();
  };
  svg.onpointerleave = () => { pointed = null; draw_plots(); };
}
function draw_plots() {
  if (!hour) return;
  const near = pointed && hour.samples.length ? hour.samples.reduce((a, b) => Math.abs(b[0] - pointed) < Math.abs(a[0] - pointed) ? b : a) : null;
  show("hourNote", near ? "at " + clock(near[0]) : hour.samples.length ? "" : "the first sample is taken in a few seconds");
  Object.keys(plots).forEach(plot);
}
async function hear_hour() {
  hour = await (await ask("hour.json")).json();
  draw_plots();
}
