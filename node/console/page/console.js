// The operator's page: asks the node for its status every two seconds and shows it. All text goes
// in as text, never as markup, so a node's name cannot become a script.
"use strict";

const period = 2000; // milliseconds

const at = (id) => document.getElementById(id);

function make(tag, text, cls) {
  const e = document.createElement(tag);
  e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

function facts(id, pairs) {
  at(id).replaceChildren(...pairs.flatMap(([name, value, cls]) => [make("dt", name), make("dd", value, cls)]));
}

// columns: [title, row => text, row => class]
function table(id, columns, rows, none) {
  if (!rows || rows.length === 0) {
    const body = make("tbody", "");
    const tr = make("tr", "");
    tr.append(make("td", none, "quiet"));
    body.append(tr);
    at(id).replaceChildren(body);
    return;
  }
  const head = make("thead", "");
  const titles = make("tr", "");
  for (const [title, , cls] of columns) {
    const th = make("th", title, cls && cls(rows[0]) === "number" ? "number" : "");
    th.scope = "col";
    titles.append(th);
  }
  head.append(titles);
  const body = make("tbody", "");
  for (const row of rows) {
    const tr = make("tr", "");
    for (const [, text, cls] of columns) tr.append(make("td", text(row), cls ? cls(row) : ""));
    body.append(tr);
  }
  at(id).replaceChildren(head, body);
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 ? n : n.toFixed(1)) + " " + units[i];
}

function age(started) {
  let s = Math.max(0, Math.floor((Date.now() - Date.parse(started)) / 1000));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (s >= size || (unit === "s" && parts.length === 0)) {
      parts.push(Math.floor(s / size) + " " + unit);
      s %= size;
    }
  }
  return parts.slice(0, 2).join(" ");
}

const mono = () => "mono";
const number = () => "number";

function show(status) {
  const c = status.cluster, under = status.under_replicated, store = status.store;
  document.title = "Kai " + c.name;
  at("name").textContent = c.name;
  at("ready").textContent = status.ready ? "Node " + status.node_id + " is ready."
    : "Node " + status.node_id + " is not ready: " + (status.reasons || ["no reason given"]).join("; ");
  at("ready").className = status.ready ? "good" : "bad";
  facts("cluster", [
    ["Founding", c.founding],
    ["Cluster id", c.id || "none yet", "mono"],
    ["Quorum (N:R:W)", c.quorum],
    ["Partitions", c.partitions + ", " + c.vnodes + " vnodes a node"],
    ["Under-replicated", under.partitions === 0 ? "none" : under.partitions + " partitions: " + under.reason,
      under.partitions === 0 ? "good" : "bad"],
    ["This node", status.version + ", up " + age(status.started)],
  ]);
  table("nodes", [
    ["Node", (n) => n.id + (n.id === status.node_id ? " (this)" : ""), mono],
    ["State", (n) => n.alive ? "alive" : "dead", (n) => n.alive ? "good" : "bad"],
    ["Zone", (n) => n.zone || "–"],
    ["Slot", (n) => n.slot, number],
    ["Partitions", (n) => n.partitions, number],
    ["Favoured by", (n) => n.favoured, number],
    ["Peer address", (n) => n.peer_addr, mono],
    ["Version", (n) => n.version],
    ["Boot", (n) => n.boot, number],
  ], status.nodes, "No node is known yet.");
  table("links", [
    ["Node", (l) => l.node, mono],
    ["Address", (l) => l.addr, mono],
    ["State", (l) => l.up ? "up" : "down", (l) => l.up ? "good" : "bad"],
    ["Detail", (l) => l.detail || ""],
  ], status.links, "No other node to be linked to.");
  const asked = store.cache_hits + store.cache_misses;
  facts("store", [
    ["Durability", store.durability],
    ["On disk", bytes(store.disk_bytes)],
    ["Record cache", bytes(store.cache_bytes) + (asked ? ", " + (100 * store.cache_hits / asked).toFixed(1) + " % hits" : "")],
    ["Fault", store.fault || "none", store.fault ? "bad" : "good"],
  ]);
}

function svg(tag, attributes, text) {
  const e = document.createElementNS(at("pen").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

const ms = (seconds) => (seconds * 1000).toFixed(seconds < 0.01 ? 2 : 1) + " ms";

// waterfall draws who was asked when, and how long each took: the replica's queue and store, the rest is the way there and back.
function waterfall(request) {
  const row = 20, left = 330, right = 1000, height = row * request.steps.length + 4;
  const x = (seconds) => left + (right - left) * Math.min(1, request.took_seconds > 0 ? seconds / request.took_seconds : 0);
  const words = [];
  const picture = svg("svg", { class: "waterfall", viewBox: "0 0 1180 " + height, role: "img" });
  request.steps.forEach((step, i) => {
    const y = row * i + 3, late = step.answered_seconds === undefined;
    const name = step.message + (step.digest ? " (ballot)" : "");
    const end = late ? request.took_seconds : step.answered_seconds;
    const state = late ? "none yet" : step.status + (step.stale ? ", stale" : "") + " " + ms(end - step.sent_seconds);
    words.push(name + " to " + step.node + ": " + state);
    picture.append(svg("text", { x: 0, y: y + 12 }, step.node.slice(0, 16) + "  " + name));
    picture.append(svg("rect", { class: late ? "none" : "wait", x: x(step.sent_seconds), y: y, width: Math.max(2, x(end) - x(step.sent_seconds)), height: 14 }));
    if (!late) {
      // Where within the wait the replica's own part was, nobody knows: it is drawn at its end.
      const store = Math.min(step.store_seconds, end - step.sent_seconds), queue = Math.min(step.queue_seconds, end - step.sent_seconds - store);
      picture.append(svg("rect", { class: "store", x: x(end - store), y: y, width: x(end) - x(end - store), height: 14 }));
      picture.append(svg("rect", { class: "queue", x: x(end - store - queue), y: y, width: x(end - store) - x(end - store - queue), height: 14 }));
    }
    picture.append(svg("text", { class: late || step.stale || step.status !== "ok" ? "late" : "", x: right + 8, y: y + 12 }, state));
  });
  picture.setAttribute("aria-label", words.join("; "));
  return picture;
}

let wanted = "slow";
const opened = new Set(); // traces whose picture is open

function showRequests(all) {
  if (all.length === 0) {
    at("requests").replaceChildren(make("p", "None since the node started.", "quiet"));
    return;
  }
  at("requests").replaceChildren(...all.map((r) => {
    const id = r.trace_id + (r.forwarded ? " forwarded" : ""), details = make("details", ""), line = make("summary", "");
    line.append(make("span", new Date(r.began).toLocaleTimeString()), make("span", ms(r.took_seconds)), make("span", r.command),
      make("span", r.outcome, r.classes.includes("failed") ? "bad" : ""),
      make("span", "partition " + r.partition + (r.batch > 1 ? ", with " + (r.batch - 1) + " others" : "") + (r.forwarded ? ", for another node" : "") + (r.detail ? ": " + r.detail : "")));
    details.append(line, make("p", "trace " + r.trace_id + ", key " + r.key_hash + ", kept as " + r.classes.join(", "), "quiet"), waterfall(r));
    details.open = opened.has(id);
    details.addEventListener("toggle", () => { if (details.open) opened.add(id); else opened.delete(id); });
    return details;
  }));
}

let shown = "";

async function requests() {
  const which = wanted;
  try {
    const all = await ask("api/requests?limit=20&class=" + which);
    const now = which + JSON.stringify(all);
    if (which === wanted && now !== shown) { // else what somebody reads would be made anew under his eyes
      shown = now;
      showRequests(all);
    }
  } catch {
    shown = "";
    at("requests").replaceChildren(make("p", "The node does not answer.", "quiet"));
  }
}

function choose(event) {
  wanted = event.currentTarget.dataset.class;
  for (const b of document.querySelectorAll("button[data-class]")) b.setAttribute("aria-pressed", String(b.dataset.class === wanted));
  requests();
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
}

async function refresh() {
  try {
    show(await ask("api/status"));
  } catch {
    at("ready").textContent = "The node does not answer; what is below is old.";
    at("ready").className = "bad";
  }
  await requests();
  setTimeout(refresh, period);
}

async function settings() {
  try {
    const all = await ask("api/config");
    table("settings", [
      ["Variable", (s) => s.name, mono],
      ["Value", (s) => s.value || "–", mono],
      ["From", (s) => s.source],
      ["Meaning", (s) => s.meaning],
    ], all, "No settings.");
  } catch {
    table("settings", [], [], "The node did not answer; load the page again.");
  }
}

for (const b of document.querySelectorAll("button[data-class]")) b.addEventListener("click", choose);
refresh();
settings();
