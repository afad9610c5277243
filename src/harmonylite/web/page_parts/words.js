// How numbers, times and ages read.
const count = n => n.toLocaleString("en");
const rate = n => (n >= 10 || n === 0 ? count(Math.round(n)) : n.toFixed(1)) + "/s";
const mega = n => (n / 1e6).toFixed(1);
const unit = (n, name) => Math.floor(n) + "\u00a0" + name;
const span = s => s < 60 ? unit(s, "s") : s < 3600 ? unit(s / 60, "min") : s < 86400 ? unit(s / 3600, "h") + " " + unit(s % 3600 / 60, "min")
  : unit(s / 86400, "d") + " " + unit(s % 86400 / 3600, "h");
const short = s => s > 0 && s < 1 ? unit(Math.ceil(s * 1000), "ms") : s < 120 ? (s && s.toFixed(1)) + "\u00a0s" : span(s);
const brief = s => s === null ? "–" : s < 1 ? "now" : s < 60 ? unit(s, "s") : s < 3600 ? unit(s / 60, "min") : s < 86400 ? unit(s / 3600, "h") : unit(s / 86400, "d");
const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const today = seconds => new Date(seconds * 1000).toDateString() === new Date().toDateString();
const day = seconds => today(seconds) ? clock(seconds) : new Date(seconds * 1000).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
const hours = seconds => today(seconds) ? clock(seconds).slice(0, 5) : new Date(seconds * 1000).toLocaleDateString([], { month: "short", day: "numeric" });
const ago = seconds => { const s = Math.max(0, Date.now() / 1000 - seconds); return s < 1 ? "just now" : brief(s) + " ago"; };
const bytes = n => n < 1e3 ? n + " B" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : n < 1e9 ? mega(n) + " MB" : (n / 1e9).toFixed(1) + " GB";
const times = (n, one, many) => count(n) + " " + (n === 1 ? one : many);
// Colour shows for how long something lasts, not how much of it there is.
const aged = seconds => seconds >= 60 ? "bad" : seconds >= 5 ? "warn" : "";
const tones = { ok: "good", starting: "none", waiting: "warn", failed: "bad", stopped: "none", up: "good", silent: "bad", unknown: "none", "this node": "good" };
const key_text = key => key.map(([name, , text]) => name + "=" + text).join(" ");
