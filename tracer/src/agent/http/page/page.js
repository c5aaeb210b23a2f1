// The live page: reads /api/v1/overview every two seconds and draws it. No library, no build step.
"use strict";

const INTERVAL_MS = 2000;
const STATES = {
  listen: [560, 130], syn_received: [250, 220], syn_sent: [870, 220], established: [560, 310],
  fin_wait_1: [250, 420], close_wait: [870, 420], fin_wait_2: [250, 540], closing: [560, 540],
  last_ack: [870, 540], time_wait: [560, 660],
};
// CLOSE appears twice: where connections start and where they end.
const CLOSED = [[560, 40], [870, 660]];
// The kernel closes the socket at FIN_WAIT2 and CLOSING; a timewait socket goes on, without events.
const EDGES = [
  ["closed", "listen", "M560 67V103", 570, 81, "start"],
  ["closed", "syn_sent", "M638 40H870V193", 880, 116, "start"],
  ["listen", "syn_received", "M482 130H250V193", 260, 168, "start"],
  ["listen", "closed", "M638 130H690", 700, 134, "start"],
  ["syn_sent", "syn_received", "M792 220H328", 560, 212, "middle"],
  ["syn_sent", "established", "M870 247V310H638", 860, 284, "end"],
  ["syn_sent", "closed", "M948 220H1000", 1008, 224, "start", true],
  ["syn_received", "established", "M250 247V310H482", 260, 284, "start"],
  ["syn_received", "fin_wait_1", "M190 247V393", 180, 330, "end"],
  ["syn_received", "closed", "M172 220H120", 112, 224, "end", true],
  ["established", "fin_wait_1", "M500 337V410H328", 490, 384, "end"],
  ["established", "close_wait", "M620 337V410H792", 632, 384, "start"],
  ["established", "closed", "M560 337V382", 560, 400, "middle", true],
  ["fin_wait_1", "fin_wait_2", "M250 447V513", 260, 486, "start"],
  ["fin_wait_1", "closing", "M328 430H560V513", 570, 486, "start"],
  ["fin_wait_1", "closed", "M172 420H120", 112, 424, "end", true],
  ["fin_wait_2", "closed", "M250 567V660H482", 260, 606, "start"],
  ["close_wait", "last_ack", "M870 447V513", 880, 486, "start"],
  ["close_wait", "closed", "M948 420H1000", 1008, 424, "start", true],
  ["closing", "closed", "M560 567V633", 570, 606, "start"],
  ["last_ack", "closed", "M870 567V633", 880, 606, "start"],
];
const KERNEL_NAMES = {
  closed: "CLOSE", listen: "LISTEN", syn_sent: "SYN_SENT", syn_received: "SYN_RECV", established: "ESTABLISHED",
  fin_wait_1: "FIN_WAIT1", fin_wait_2: "FIN_WAIT2", close_wait: "CLOSE_WAIT", closing: "CLOSING",
  last_ack: "LAST_ACK", time_wait: "TIME_WAIT",
};

const byId = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Creates an element with attributes and children; text is never parsed as HTML. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Creates an SVG element. */
function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US"));

/** Formats microseconds with three digits. */
function duration(us) {
  if (us === null || us === undefined) return "–";
  const short = (value) => Number(value.toPrecision(3)).toString();
  if (us < 1000) return `${short(us)} µs`;
  if (us < 1e6) return `${short(us / 1e3)} ms`;
  if (us < 60e6) return `${short(us / 1e6)} s`;
  const seconds = Math.floor(us / 1e6);
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, "0")}s`
    : `${Math.floor(seconds / 3600)}h${String(Math.floor(seconds / 60) % 60).padStart(2, "0")}m`;
}

/** Formats a count per second. */
const perSecond = (rate) => `${rate < 10 ? rate.toFixed(1) : number(Math.round(rate))}/s`;
const bytes = (count) => (count === null ? "–" : `${(count / 1e6).toFixed(1)} MB`);
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

/** A button that filters by a value; plain text where there is nothing to filter by. */
function filterButton(kind, value, text = value) {
  // Names with escaped bytes cannot be a filter.
  if (value === null || value === undefined || String(value).includes("\\")) return text ?? "unknown";
  const used = new URLSearchParams(location.search).get(kind) === String(value);
  const title = used ? "Show everything" : `Show only ${kind} ${value}`;
  const button = make("button", { type: "button", "data-key": `${kind}=${value}`, "aria-pressed": used, title }, String(text));
  button.addEventListener("click", () => (used ? setFilter(null) : setFilter(kind, String(value))));
  return button;
}

function setFilter(kind, value) {
  history.pushState(null, "", kind ? `?${new URLSearchParams({ [kind]: value })}` : location.pathname);
  filterChanged();
}

/** Counts of another filter are not comparable, so nothing moves at first. */
function filterChanged() {
  previous = null;
  refresh();
}

/**
 * Replaces those children of an element that differ. Others stay, with what is selected or read aloud in them. The keyboard
 * focus stays on the same button; if that is gone, it moves to the content.
 */
function replace(id, children) {
  const parent = byId(id);
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  children.forEach((child, index) => {
    const old = parent.children[index];
    if (!old) parent.append(child);
    else if (old.outerHTML !== child.outerHTML) old.replaceWith(child);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
  if (focused && !parent.contains(document.activeElement)) {
    (parent.querySelector(`[data-key="${CSS.escape(focused)}"]`) ?? byId("main")).focus();
  }
}

/** Fills a table; a cell is text, an element, or an array of a class and one of both. */
function fill(id, rows, none) {
  const columns = [...byId(id).parentElement.querySelectorAll("th")].map((head) => head.textContent);
  if (rows.length === 0) {
    replace(id, [make("tr", { role: "row" }, make("td", { role: "cell", colspan: columns.length, class: "none" }, none))]);
    return;
  }
  // A phone shows the cells below each other, with the heads of their columns.
  replace(id, rows.map((cells) => make("tr", { role: "row" }, ...cells.map((cell, index) => {
    const [kind, content] = Array.isArray(cell) ? cell : ["", cell];
    return make("td", { role: "cell", class: kind, "data-head": columns[index] }, content);
  }))));
}

/** A table keeps its roles where a style sheet changes how its rows are laid out. */
function nameRoles() {
  const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", "thead tr": "row", th: "columnheader" };
  for (const [selector, role] of Object.entries(roles)) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute("role", role);
  }
}

// The diagram is built once and then updated.
const edges = new Map();
const nodes = new Map();

function buildDiagram() {
  const svg = byId("diagram");
  const marker = (kind) => draw("marker", { id: `arrow-${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    draw("path", { d: "M0 0L8 4L0 8Z", class: `arrow ${kind}` }));
  svg.append(draw("defs", {}, ...["plain", "used", "fails"].map(marker)));
  svg.append(draw("g", { class: "edge silent" }, draw("path", { d: "M638 660H792", "marker-end": "url(#arrow-plain)" })));
  for (const [from, to, path, x, y, anchor, fails] of EDGES) {
    const line = draw("path", { d: path });
    const count = draw("text", { x, y, "text-anchor": anchor });
    const rate = draw("text", { x, y: y + 14, "text-anchor": anchor, class: "rate" });
    const title = draw("title");
    const group = draw("g", { "data-edge": `${from} ${to}` }, title, line, count, rate);
    svg.append(group);
    edges.set(`${from} ${to}`, { group, line, count, rate, title, fails: Boolean(fails) });
  }
  svg.append(draw("g", { id: "dots" }));
  const box = (x, y, name, kind) => draw("g", { class: kind, "data-state": name },
    draw("rect", { x: x - 78, y: y - 27, width: 156, height: 54, rx: 9 }),
    draw("text", { x, y: y - 8, class: "name" }, KERNEL_NAMES[name]));
  for (const [x, y] of CLOSED) {
    const node = box(x, y, "closed", "node");
    node.querySelector(".name").setAttribute("y", y + 4);
    svg.append(node);
  }
  for (const [name, [x, y]] of Object.entries(STATES)) {
    const live = draw("text", { x, y: y + 15, class: "live" });
    const stuck = draw("text", { x: x - 8, y: y + 42, class: "stuck" });
    const node = box(x, y, name, name === "time_wait" ? "node timewait" : "node");
    node.append(live, stuck);
    svg.append(node);
    nodes.set(name, { node, live, stuck });
  }
}

let previous = null;

function updateDiagram(overview) {
  const filtered = overview.filter !== null;
  byId("diagram-note").textContent = filtered
    ? "transitions of the last hour"
    : "transitions since the start, and sockets now";
  const countOf = (edge) => (filtered ? edge.last_hour : edge.total);
  const time = Date.parse(overview.time);
  const seconds = previous ? (time - previous.time) / 1000 : 0;
  const now = new Map();
  for (const edge of overview.edges) {
    const key = `${edge.from} ${edge.to}`;
    const shown = edges.get(key);
    if (!shown) continue;
    const count = countOf(edge);
    now.set(key, count);
    const gained = previous ? Math.max(0, count - (previous.counts.get(key) ?? 0)) : 0;
    const rate = seconds > 0 ? gained / seconds : 0;
    shown.group.setAttribute("class", `edge${count > 0 ? " used" : ""}${shown.fails ? " fails" : ""}`);
    shown.group.setAttribute("data-count", count);
    shown.line.setAttribute("marker-end", `url(#arrow-${count === 0 ? "plain" : shown.fails ? "fails" : "used"})`);
    shown.count.textContent = count > 0 ? number(count) : "";
    shown.rate.textContent = rate > 0 ? perSecond(rate) : "";
    shown.title.textContent = `${KERNEL_NAMES[edge.from]} → ${KERNEL_NAMES[edge.to]}: ${number(count)}`;
    if (gained > 0) move(shown, gained);
  }
  const used = overview.edges.filter((edge) => countOf(edge) > 0);
  fill("edges", used.map((edge) => [KERNEL_NAMES[edge.from], KERNEL_NAMES[edge.to], ["n", number(countOf(edge))]]), "No transition yet.");
  for (const state of overview.states) {
    const shown = nodes.get(state.state);
    if (!shown) continue;
    shown.live.textContent = number(state.connections);
    shown.node.setAttribute("data-connections", state.connections ?? "");
    shown.node.classList.toggle("busy", state.connections > 0);
    shown.stuck.textContent = state.stuck > 0 ? `${number(state.stuck)} stuck` : "";
  }
  byId("diagram").setAttribute("aria-label", "TCP state diagram. " + overview.states
    .filter((state) => state.connections > 0)
    .map((state) => `${KERNEL_NAMES[state.state]} ${state.connections}`).join(", "));
  if (previous === null || time > previous.time) previous = { time, counts: now };
}

/** Lets dots move along an edge until the next counts; their number grows with the logarithm of the count. */
function move({ line, fails }, gained) {
  if (still.matches || document.hidden) return;
  const dots = Math.min(10, Math.ceil(Math.log2(gained + 1)));
  const length = line.getTotalLength();
  for (let index = 0; index < dots; index += 1) {
    const dot = draw("circle", { r: 3.6, class: fails ? "dot fails" : "dot", cx: -99 });
    byId("dots").append(dot);
    const begun = performance.now() + (index / dots) * (INTERVAL_MS - 300);
    const step = (at) => {
      const share = (at - begun) / 900;
      if (share >= 1) return dot.remove();
      if (share >= 0) {
        const { x, y } = line.getPointAtLength(share * length);
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", y);
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}

function updateHeat({ bounds_us: bounds, resend_steps_us: steps, minutes }) {
  const [left, top, width, height] = [66, 8, 16.2, 16];
  const rows = bounds.length;
  const most = Math.max(1, ...minutes.flatMap((minute) => [...minute.durations, minute.failed]));
  const shade = (count) => (0.22 + 0.78 * Math.log(count + 1) / Math.log(most + 1)).toFixed(3);
  const yOf = (row) => top + (rows - row) * height + 6;
  const parts = [];
  // Soon after the boot of the host there are fewer minutes.
  const right = left + 60 * width;
  parts.push(draw("rect", { x: left, y: top, width: right - left, height: height - 1, rx: 2, class: "heat-back" }));
  parts.push(draw("rect", { x: left, y: yOf(rows - 1), width: right - left, height: rows * height - 1, rx: 2, class: "heat-back" }));
  parts.push(draw("text", { x: left - 8, y: top + 12, "text-anchor": "end", class: "heat-label" }, "failed"));
  bounds.forEach((bound, row) => {
    if (row % 2 === 0 || steps.includes(bound)) {
      const text = row === 0 ? "0" : duration(bound);
      parts.push(draw("text", { x: left - 8, y: yOf(row) + 19, "text-anchor": "end", class: "heat-label" }, text));
    }
  });
  minutes.forEach((minute, column) => {
    const x = left + (60 - minutes.length + column) * width;
    const cell = (y, count, kind, what) => {
      if (count === 0) return;
      parts.push(draw("rect", { x: x + 0.5, y: y + 0.5, width: width - 1.5, height: height - 1.5, rx: 2, class: `heat-cell ${kind}`, "fill-opacity": shade(count) },
        draw("title", {}, `${clock(minute.start)}: ${number(count)} ${what}`)));
    };
    cell(top, minute.failed, "failed", "failed");
    minute.durations.forEach((count, row) => {
      const until = row + 1 < rows ? ` to ${duration(bounds[row + 1])}` : " or more";
      cell(yOf(row), count, bounds[row] >= steps[0] ? "slow" : "", `in ${duration(bounds[row])}${until}`);
    });
    if (column % 10 === 0 || column === minutes.length - 1) {
      parts.push(draw("text", { x: x + width / 2, y: yOf(0) + height + 16, "text-anchor": "middle", class: "heat-label" }, clock(minute.start).slice(0, 5)));
    }
  });
  steps.forEach((step, index) => {
    const y = yOf(bounds.indexOf(step)) + height;
    parts.push(draw("line", { x1: left, x2: right + 4, y1: y, y2: y, class: "heat-step" }));
    parts.push(draw("text", { x: right + 8, y: y + 4, class: "heat-step-label" }, `${duration(step)}: ${["1st", "2nd", "3rd", "4th"][index]} resent SYN`));
  });
  replace("heat", parts);
  const sum = (of) => minutes.reduce((total, minute) => total + of(minute), 0);
  const slowOf = (minute) => minute.durations.reduce((total, count, row) => total + (bounds[row] >= steps[0] ? count : 0), 0);
  const note = `${number(sum((minute) => minute.established))} completed, ${number(sum(slowOf))} took 1 s or more, ${number(sum((minute) => minute.failed))} failed`;
  const used = minutes.filter((minute) => minute.established + minute.failed > 0).reverse();
  fill("minutes", used.map((minute) => [
    clock(minute.start).slice(0, 5), ["n", number(minute.established)], ["n", number(slowOf(minute))],
    [minute.failed > 0 ? "n bad" : "n", number(minute.failed)],
  ]), "No handshake in the last hour.");
  byId("heat-note").textContent = note;
  byId("heat").setAttribute("aria-label", `Heat map of handshakes by minute and duration: ${note}`);
}

function openList(id, kind, entries) {
  if (entries === null) return replace(id, [make("li", {}, make("span", {}, "counting…"))]);
  if (entries.length === 0) return replace(id, [make("li", {}, make("span", {}, "none"))]);
  replace(id, entries.slice(0, 12).map((entry) => make("li", {}, filterButton(kind, entry.name), make("span", {}, number(entry.connections)))));
}

function remote(address, port) {
  const span = make("span", {});
  span.append(filterButton("remote", address, address.includes(":") ? `[${address}]` : address));
  if (port !== null) span.append(":", filterButton("port", port, String(port)));
  return span;
}

/** The processes that listen, as buttons. */
function listening(names) {
  if (names.length === 0) return "unknown";
  const span = make("span", {});
  names.forEach((name, index) => span.append(index > 0 ? ", " : "", filterButton("process", name)));
  return span;
}

function groupName(group) {
  if (group.remote !== null && group.port !== null) return remote(group.remote, group.port);
  if (group.remote !== null) return filterButton("remote", group.remote);
  if (group.port !== null) return filterButton("port", group.port, group.group);
  return group.process !== null ? filterButton("process", group.process) : group.group;
}

const statesText = (states) => states.map((state) => `${number(state.count)} ${KERNEL_NAMES[state.state]}`).join(", ");

function figures(overview) {
  const { health } = overview;
  const open = overview.states.find((state) => state.state === "established").connections;
  const entries = [
    ["established", number(open)],
    ["transitions", number(health.transitions_seen)],
    ["lost", number(health.transitions_lost)],
    ["processor time", health.cpu_seconds === null ? "–" : `${health.cpu_seconds.toFixed(1)} s`],
    ["memory", bytes(health.resident_bytes)],
  ];
  replace("figures", entries.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function show(overview) {
  document.title = `${overview.host} – tcptrace-bpf`;
  byId("host").textContent = overview.host;
  byId("about").textContent = `Linux ${overview.kernel}, ${overview.mode ? `mode ${overview.mode}` : "a recording"}, ${clock(overview.time)}`;
  byId("version").textContent = `tcptrace-bpf ${overview.version}`;
  byId("filter").hidden = overview.filter === null;
  if (overview.filter) {
    byId("filter-kind").textContent = overview.filter.kind;
    byId("filter-value").textContent = overview.filter.value;
  }
  figures(overview);
  updateDiagram(overview);
  const notes = overview.health.notes.map((note) => make("li", { class: note.problem ? "problem" : "" }, note.text));
  if (overview.filter && overview.unfiltered > 0) {
    notes.push(make("li", { class: "problem" }, `${number(overview.unfiltered)} counts are missing under a filter: too many processes, addresses or ports.`));
  }
  replace("health", notes);
  openList("processes", "process", overview.processes);
  openList("remotes", "remote", overview.remotes);
  openList("ports", "port", overview.ports);
  updateHeat(overview.handshakes);
  fill("groups", overview.groups.slice(0, 12).map((group) => [
    groupName(group), ["n", number(group.count)], [group.failed > 0 ? "n bad" : "n", number(group.failed)], ["n", number(group.resent)],
    ["n", duration(group.p50_us)], ["n", duration(group.p99_us)], [group.offender ? "story bad" : "story", group.story || "nothing wrong"],
  ]), "No handshake in the last hour.");
  fill("slowest", overview.slowest.slice(0, 10).map((it) => [
    ["n", duration(it.duration_us)], filterButton("process", it.process), remote(it.remote, it.remote_port), ["story", it.story],
  ]), "No handshake in the last hour.");
  fill("failed", overview.failed.slice(0, 10).map((it) => [
    clock(it.time), filterButton("process", it.process), remote(it.remote, it.remote_port), ["story bad", it.story],
  ]), "No handshake has failed in the last hour.");
  byId("stuck-note").textContent = overview.stuck ? number(overview.stuck.count) : "counting…";
  fill("stuck", (overview.stuck?.groups ?? []).slice(0, 10).map((group) => [
    filterButton("process", group.process), ["n", number(group.count)], ["n", duration(group.oldest_us)],
    ["story", statesText(group.states)], remote(group.remote, group.remote_port),
  ]), overview.stuck ? "No connection is stuck." : "The connections are being counted.");
  fill("listeners", overview.listeners.slice(0, 12).map((it) => [
    filterButton("port", it.port), ["names", listening(it.processes)], [it.queue > it.limit ? "n bad" : "n", number(it.queue)],
    ["n", number(it.limit)], ["n", number(it.peak)], [it.drops > 0 ? "n bad" : "n", number(it.drops)],
  ]), overview.filter?.kind === "remote" ? "A listener has no remote address." : "No listening socket.");
  const problems = overview.health.notes.filter((note) => note.problem).length;
  const filter = overview.filter ? `, only ${overview.filter.kind} ${overview.filter.value}` : "";
  setStatus(overview.health.status, `Live${filter}${problems === 0 ? "" : `, ${problems} ${problems === 1 ? "problem" : "problems"}`}`);
}

/** Changes the status only when it differs, because screen readers announce every change. */
function setStatus(kind, text) {
  const status = byId("status");
  status.className = `status ${kind}`;
  if (status.textContent !== text) status.textContent = text;
  byId("main").classList.toggle("old", kind === "down");
}

let running = 0;
let pending = false;
let drawn = false;

async function refresh() {
  const turn = ++running;
  pending = true;
  try {
    const response = await fetch(`/api/v1/overview${location.search}`, { cache: "no-store", signal: AbortSignal.timeout(5 * INTERVAL_MS) });
    // A refusal may come without JSON, such as one for a missing password.
    const body = await response.json().catch(() => ({ error: `The tracer refuses the request: status ${response.status}` }));
    if (turn !== running) return;
    if (!response.ok) {
      setStatus("down", body.error);
      return;
    }
    show(body);
    if (!drawn) scrollOnce();
    drawn = true;
  } catch {
    if (turn === running) setStatus("down", "The tracer does not answer");
  } finally {
    if (turn === running) pending = false;
  }
}

/** On a phone, shows the middle of the diagram, and the last minutes. */
function scrollOnce() {
  const diagram = byId("diagram").parentElement;
  diagram.scrollLeft = (diagram.scrollWidth - diagram.clientWidth) / 2;
  const heat = byId("heat").parentElement;
  heat.scrollLeft = heat.scrollWidth;
}

/** The keyboard reaches a box only where there is something to scroll. */
const sizes = new ResizeObserver((changed) => {
  for (const { target } of changed) {
    const box = target.closest(".scroll");
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
});

buildDiagram();
nameRoles();
byId("clear").addEventListener("click", () => { setFilter(null); byId("main").focus(); });
addEventListener("popstate", filterChanged);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
addEventListener("keydown", (event) => { if (event.key === "Escape" && location.search) setFilter(null); });
refresh();
for (const box of document.querySelectorAll(".scroll")) {
  sizes.observe(box);
  sizes.observe(box.firstElementChild);
}
// A slow answer is waited for.
setInterval(() => { if (!document.hidden && !pending) refresh(); }, INTERVAL_MS);
