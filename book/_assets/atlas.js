/* The neuron atlas: three linked views of one model's neurons (Vega-Lite), a search and a panel.

   One state decides everything that is shown; what the reader does changes it through `select`,
   `hover` and `light`, and these alone redraw. Data comes as scripts (../atlas/MODEL.js), since a page opened from
   a file may not fetch; its tokens are as they are shown. Every piece of text enters the page as text, never as HTML. */
"use strict";
(() => {
  const FLOOR = 1e-5; // nats: smaller effects are drawn here, on the lower edge of the rank curve
  const FEW = 40; // lines of highlighted neurons, and results of a search, that are drawn at most
  const at = (name) => document.getElementById(`atlas-${name}`);
  const known = {}; // data of the models that were loaded, by name
  const views = {}; // Vega's views, by name
  const state = { model: null, rows: [], byRank: [], neuron: null, hovered: null, lit: null };

  /* ---- numbers as text ---- */
  const short = (v) => (Math.abs(v) < 1e-4 && v !== 0 ? v.toExponential(2) : String(Number(v.toPrecision(3))));
  const number = (v) => (v === null || v === undefined ? "" : short(v).replaceAll("-", "−"));
  const interval = (row, name) =>
    row[name] === undefined || row[name] === null ? "not measured"
      : `${number(row[name])} (${number(row[name + "_low"])} to ${number(row[name + "_high"])})`;

  /* What is said of a neuron, in the panel and when pointing at it: name and text, or tokens. */
  const facts = (row) => [
    ["rank", `${row.rank} of ${state.rows.length}${row.in_head ? ", in the head" : ""}`],
    ["effect on rare, nats", interval(row, "delta_loss_rare")],
    ["effect on common, nats", interval(row, "delta_loss_common")],
    ["direct on rare, nats", interval(row, "direct_rare")],
    ["direct on common, nats", interval(row, "direct_common")],
    ["|W_out|", number(row.W_out_norm)],
    row.gate_rate === undefined ? ["activation positive", `${number(100 * row.firing_rate)} % of positions`]
      : ["gate open", `${number(100 * row.gate_rate)} % of tokens`],
    ["promotes", row.promotes],
    ["suppresses", row.suppresses],
  ];

  /* ---- a model's data as rows ---- */
  window.atlasData = (data) => { known[data.model] = data; };
  function rowsOf(data) {
    const names = Object.keys(data.columns);
    return data.columns.rank.map((_, neuron) => {
      const row = { neuron };
      for (const name of names) row[name] = data.columns[name][neuron];
      row.size = Math.max(Math.abs(row.delta_loss_rare), FLOOR);
      row.kind = row.in_head ? "head" : row.delta_loss_rare > 0 ? "helps" : "harms";
      return row;
    });
  }
  function load(model) {
    return new Promise((done, failed) => {
      if (known[model]) return done(known[model]);
      const script = document.createElement("script");
      script.src = `../atlas/${model}.js`;
      script.onload = () => done(known[model]);
      script.onerror = () => failed(new Error(`the data of ${model} cannot be read`));
      document.head.append(script);
    });
  }

  /* ---- the views ---- */
  const dark = () => document.documentElement.dataset.theme === "dark";
  function colours() { // Okabe and Ito's, lighter on dark; grey for what is only context
    return dark()
      ? { text: "#e6e6e6", grid: "#444b54", head: "#f4a05c", helps: "#9aa4b1", harms: "#56b4e9", selected: "#ffe14d", hovered: "#ffffff" }
      : { text: "#222832", grid: "#dfe3e8", head: "#c44e00", helps: "#6b7683", harms: "#0072b2", selected: "#000000", hovered: "#a3006d" };
  }
  function config(c) {
    const label = { labelColor: c.text, titleColor: c.text, labelFontSize: 13, titleFontSize: 14, titleFontWeight: 400 };
    return {
      background: "transparent", font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      axis: { ...label, gridColor: c.grid, domainColor: c.text, tickColor: c.text },
      legend: { ...label, orient: "bottom", title: null, symbolOpacity: 1, columns: 2 },
    };
  }
  const LOG = { scale: { type: "log", nice: false, padding: 8 } };
  const POWERS = [-0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1];
  const SMALL = "abs(datum.value) < 0.001 && datum.value ? format(datum.value, '~e') : format(datum.value, '~g')";
  const TENS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6];
  const ticks = (values) => ({ values, labelExpr: values === TENS ? "format(datum.value, '~s')" : SMALL, labelOverlap: true });
  const symlog = (title) => ({ scale: { type: "symlog", constant: 5e-4, nice: false, padding: 8 }, title, axis: ticks(POWERS) });
  const KINDS = { head: "the head", helps: "other neurons", harms: "loss falls without it" };

  /* All neurons as points, those picked out (selected, pointed at) on top, and a brush. */
  function points(x, y, description) {
    const c = colours(), legend = { labelExpr: `${JSON.stringify(KINDS)}[datum.value]` };
    return {
      description, width: "container", height: 330, autosize: { type: "fit", contains: "padding" },
      params: [{ name: "lit", value: null }],
      datasets: { neurons: [...state.byRank].reverse(), picked: [] }, // the head is drawn last
      layer: [
        {
          data: { name: "neurons" },
          params: [
            { name: "brush", select: { type: "interval", encodings: ["x", "y"], zoom: false, mark: { fill: c.harms, fillOpacity: 0.15, stroke: c.text } } },
          ],
          mark: { type: "point", filled: true, aria: false, cursor: "pointer" },
          encoding: {
            x, y,
            color: { field: "kind", type: "nominal", legend, scale: { domain: Object.keys(KINDS), range: Object.keys(KINDS).map((k) => c[k]) } },
            shape: { field: "kind", type: "nominal", legend, scale: { domain: Object.keys(KINDS), range: ["diamond", "circle", "triangle-down"] } },
            opacity: { condition: { test: "lit && !lit[datum.neuron]", value: 0.05 }, value: 0.85 },
            size: { condition: { test: "lit && lit[datum.neuron]", value: 70 }, value: 34 },
          },
        },
        {
          data: { name: "picked" },
          mark: { type: "point", size: 170, strokeWidth: 3, filled: false, aria: false, tooltip: false },
          encoding: { x, y, stroke: { field: "as", type: "nominal", legend: null, scale: { domain: ["selected", "hovered"], range: [c.selected, c.hovered] } } },
        },
      ],
      config: config(c),
    };
  }
  const rankSpec = () => points(
    { field: "rank", type: "quantitative", ...LOG, title: "rank", axis: ticks(TENS) },
    { field: "size", type: "quantitative", ...LOG, title: "|effect on rare| (nats)", axis: ticks([1e-5, 1e-4, 1e-3, 0.01, 0.1, 1]) },
    "Size of the effect on rare targets by rank, on two logarithmic axes");
  const scatterSpec = () => points(
    { field: "delta_loss_common", type: "quantitative", ...symlog("effect on common (nats)") },
    { field: "delta_loss_rare", type: "quantitative", ...symlog("effect on rare (nats)") },
    "Effect on rare targets against effect on common targets, a point a neuron");

  const LINES = { selected: "selected", hovered: "pointed at", highlighted: "highlighted", head: "mean of head", all: "mean of all" };
  function gradientSpec() {
    const c = colours(), range = [c.selected, c.hovered, c.harms, c.head, c.helps];
    return {
      description: "Effect of neurons by frequency of the target", width: "container", height: 330,
      autosize: { type: "fit", contains: "padding" }, datasets: { lines: [], border: [{ x: state.border }] },
      layer: [
        { data: { name: "border" }, mark: { type: "rule", strokeDash: [2, 3], color: c.text, aria: false }, encoding: { x: { field: "x", type: "quantitative" } } },
        {
          data: { name: "lines" },
          mark: { type: "line", aria: false, point: { size: 22 } },
          encoding: {
            x: { field: "x", type: "quantitative", ...LOG, title: "target's frequency, per million tokens", axis: ticks(TENS) },
            y: { field: "y", type: "quantitative", title: "effect (nats)" },
            detail: { field: "line" },
            color: { field: "as", type: "nominal", scale: { domain: Object.keys(LINES), range },
              legend: { labelExpr: `${JSON.stringify(LINES)}[datum.value]`, columns: 2, symbolType: "stroke" } },
            strokeWidth: { condition: { test: "datum.as == 'highlighted'", value: 0.8 }, value: 2.4 },
            strokeDash: { condition: { test: "datum.as == 'head' || datum.as == 'all'", value: [6, 4] }, value: [1, 0] },
            opacity: { condition: { test: "datum.as == 'highlighted'", value: 0.55 }, value: 1 },
          },
        },
      ],
      config: config(c),
    };
  }
  const line = (values, as, name) => values.map((y, i) => ({ x: state.data.frequency[i], y, as, line: name }));
  const binsOf = (row) => state.data.frequency.map((_, i) => row[`delta_loss_bin_${i + 1}`]);
  function meanOf(rows) {
    const sums = rows.map(binsOf).reduce((all, one) => all.map((v, i) => v + one[i]));
    return sums.map((sum) => sum / rows.length);
  }
  function lines() {
    const lit = state.lit ? state.byRank.filter((row) => state.lit[row.neuron]).slice(0, FEW) : [];
    return [
      ...line(meanOf(state.rows), "all", "all"),
      ...line(meanOf(state.rows.filter((row) => row.in_head)), "head", "head"),
      ...lit.flatMap((row) => line(binsOf(row), "highlighted", row.neuron)),
      ...picked().flatMap((row) => line(binsOf(row), row.as, `${row.as} ${row.neuron}`)),
    ];
  }
  function picked() {
    const of = (neuron, as) => (neuron === null ? [] : [{ ...state.rows[neuron], as }]);
    return [...of(state.neuron, "selected"), ...(state.hovered === state.neuron ? [] : of(state.hovered, "hovered"))];
  }
  async function draw() {
    const specs = { rank: rankSpec(), scatter: scatterSpec(), gradient: gradientSpec() };
    for (const [name, spec] of Object.entries(specs)) {
      if (views[name]) views[name].finalize();
      const actions = { export: true, source: false, compiled: false, editor: false };
      const embedded = await vegaEmbed(at(name), spec, { mode: "vega-lite", renderer: "svg", actions, tooltip: false, logLevel: 1, downloadFileName: `atlas-${name}` });
      at(name).querySelector("summary").setAttribute("aria-label", "Save this chart");
      // Vega gives the brush a role without a name; what it holds is said in the status line.
      at(name).querySelectorAll(".mark-rect").forEach((one) => one.setAttribute("aria-hidden", "true"));
      views[name] = embedded.view;
      if (name !== "gradient") listen(name, embedded.view);
    }
    await update();
  }
  function update() {
    const marks = picked();
    for (const name of ["rank", "scatter"]) {
      views[name].data("picked", marks).signal("lit", state.lit).run();
    }
    return views.gradient.data("lines", lines()).runAsync();
  }

  /* Pointing, clicking and brushing in a view of points. */
  function listen(name, view) {
    const fields = { rank: ["rank", "size"], scatter: ["delta_loss_common", "delta_loss_rare"] }[name];
    let from = null, touched = false, waiting = 0;
    const look = () => { // a brush moves with every pixel: what it holds is looked up once a frame
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => brushed(name, fields, view.signal("brush")));
    };
    view.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY];
      touched = event.pointerType === "touch";
    });
    // A finger that goes up or down scrolls the page: until it is lifted or that is so, nothing is highlighted.
    view.addEventListener("pointerup", () => { if (touched) look(); touched = false; });
    view.addEventListener("pointercancel", () => { clearBrush(name); touched = false; });
    view.addSignalListener("brush", () => touched || look());
    view.addEventListener("pointermove", (event, item) => { hover(neuronAt(item), event); });
    view.addEventListener("pointerout", (event) => { hover(null, event); });
    view.addEventListener("click", (event, item) => {
      const moved = from && Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 4;
      const neuron = neuronAt(item) ?? (event.pointerType === "touch" ? nearest(name, event) : null);
      if (!moved && neuron !== null) select(neuron);
    });
  }
  const FINGER = 16; // pixels that a tap may be off
  function nearest(name, event) {
    let found = null, least = FINGER;
    for (const mark of at(name).querySelectorAll(".mark-symbol.role-mark path")) {
      const box = mark.getBoundingClientRect(), neuron = neuronAt(mark.__data__);
      const far = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
      if (neuron !== null && far < least) [found, least] = [neuron, far];
    }
    return found;
  }
  const neuronAt = (item) => (item && item.datum && Number.isInteger(item.datum.neuron) ? item.datum.neuron : null);
  function brushed(name, fields, value) {
    const ends = fields.map((field) => (value[field] || []).slice().sort((a, b) => a - b));
    if (ends.some((one) => one.length < 2)) {
      if (state.brush === name) light(null, "");
      return;
    }
    state.brush = name;
    const inside = state.rows.filter((row) => fields.every((f, i) => row[f] !== null && row[f] >= ends[i][0] && row[f] <= ends[i][1]));
    clearBrush(name === "rank" ? "scatter" : "rank");
    light(inside, `${inside.length} neurons are highlighted`);
  }
  function clearBrush(name) {
    const view = views[name];
    if (view && (view.signal("brush_x").length || view.signal("brush_y").length)) {
      view.signal("brush_x", []).signal("brush_y", []).run();
    }
  }

  /* ---- what the reader can do ---- */
  function light(rows, why) {
    state.lit = rows && Object.fromEntries(rows.map((row) => [row.neuron, true]));
    const more = rows && rows.length > FEW ? `; lines are drawn for the first ${FEW} of them` : "";
    say(why + (why ? more + "." : ""));
    return update();
  }
  function hover(neuron, event) {
    tip(neuron, event);
    if (neuron === state.hovered) return;
    state.hovered = neuron;
    update();
  }
  function tip(neuron, event) {
    const rows = neuron === null ? [] : [["neuron", String(neuron)], ...facts(state.rows[neuron])];
    const box = at("tip");
    box.hidden = neuron === null;
    box.replaceChildren(...table(rows));
    if (neuron === null) return;
    const beside = event.clientX + 18 + box.offsetWidth > innerWidth ? Math.max(4, event.clientX - 18 - box.offsetWidth) : event.clientX + 18;
    const below = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 4));
    Object.assign(box.style, { left: `${beside}px`, top: `${below}px` });
  }
  function select(neuron) {
    state.neuron = neuron;
    const row = neuron === null ? null : state.rows[neuron];
    at("neuron").textContent = row ? `Neuron ${neuron}` : "No neuron is selected";
    at("table").replaceChildren(...table(row ? facts(row) : []));
    at("previous").disabled = Boolean(row) && row.rank === 1;
    at("next").disabled = Boolean(row) && row.rank === state.rows.length;
    const card = row && state.data.cards[neuron];
    at("card").replaceChildren();
    if (card) {
      const link = Object.assign(document.createElement("a"), { href: card, textContent: `Card of neuron ${neuron}` });
      at("card").append(link);
    }
    history.replaceState(null, "", `#${state.model}${row ? `/${neuron}` : ""}`);
    return update();
  }
  const code = (text) => Object.assign(document.createElement("code"), { textContent: text });
  function table(rows) {
    return rows.map(([name, text]) => {
      const tr = document.createElement("tr"), th = document.createElement("th"), td = document.createElement("td");
      Object.assign(th, { scope: "row", textContent: name });
      if (Array.isArray(text)) td.append(...text.flatMap((one) => [code(one), " "]));
      else td.textContent = text;
      tr.append(th, td);
      return tr;
    });
  }
  function step(by) { // by rank; from nothing to the first
    const last = state.byRank.length, now = state.neuron === null ? 0 : state.rows[state.neuron].rank;
    const rank = Math.min(last, Math.max(1, now + by));
    const neuron = state.byRank[rank - 1].neuron;
    select(neuron);
    say(`Neuron ${neuron}, rank ${rank}: ${interval(state.byRank[rank - 1], "delta_loss_rare")} nats on rare targets.`);
  }
  const say = (text) => { at("status").textContent = text; };

  function search(asked) {
    const text = asked.trimEnd().replaceAll(" ", "␣"); // a space before a word is a part of the token
    at("found").replaceChildren();
    if (!text) return light(null, "");
    const index = /^␣*(\d+)$/.exec(text)?.[1];
    const exact = index && Number(index) < state.rows.length ? [state.rows[Number(index)]] : [];
    const small = text.toLowerCase();
    const has = (tokens) => tokens.some((token) => token.toLowerCase().includes(small));
    const writing = state.byRank.filter((row) => !exact.includes(row) && (has(row.promotes) || has(row.suppresses)));
    const found = [...exact, ...writing];
    if (!found.length) {
      light(null, "");
      const none = index ? `There is no neuron ${index} (they are numbered 0 to ${state.rows.length - 1}), and none` : "No neuron";
      return say(`${none} of ${state.model} has a token with “${text}” among those it promotes or suppresses most.`);
    }
    at("found").append(...found.slice(0, FEW).map(result));
    if (exact.length) select(exact[0].neuron);
    const counted = [exact.length ? `neuron ${index}` : "", writing.length ? `${writing.length} neurons that promote or suppress a token with “${text}”` : ""];
    return light(found, `Found ${counted.filter(Boolean).join(" and ")}`);
  }
  function result(row) {
    const item = document.createElement("li"), button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: `${row.neuron} (rank ${row.rank})` });
    button.addEventListener("click", () => select(row.neuron));
    item.append(button);
    return item;
  }
  function highlight() {
    const [from, to] = [at("from"), at("to")].map((input) => Number(input.value));
    if (!(from >= 1 && to >= from && to <= state.rows.length)) {
      return say(`Give two ranks from 1 to ${state.rows.length}, the smaller first.`);
    }
    const rows = state.byRank.slice(from - 1, to);
    return light(rows, `${rows.length} neurons are highlighted, ranks ${from} to ${to}`);
  }
  function clear() {
    ["rank", "scatter"].forEach(clearBrush);
    at("search").value = "";
    at("found").replaceChildren();
    return light(null, "");
  }
  const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 };
  function pressed(event) {
    if (event.key === "Escape") clear();
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    step(KEYS[event.key]);
  }

  /* ---- models, and the address: #MODEL/NEURON ---- */
  // Vega's scripts stand after this one: a model's data loads beside them.
  const scripts = new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  async function show(model, neuron) {
    const [data] = await Promise.all([load(model), scripts]), rare = data.frequency[data.n_rare - 1], next = data.frequency[data.n_rare];
    const rows = (known[model].rows ||= rowsOf(data));
    const byRank = [...rows].sort((a, b) => a.rank - b.rank);
    Object.assign(state, { model, data, rows, byRank, neuron: null, hovered: null, lit: null, border: Math.sqrt(rare * next) });
    at("model").value = model;
    at("found").replaceChildren();
    const head = rows.filter((row) => row.in_head).length;
    Object.assign(at("to"), { max: rows.length, value: head });
    Object.assign(at("from"), { max: rows.length, value: 1 });
    await draw();
    const there = neuron === null || neuron < rows.length;
    await select(there ? (neuron ?? byRank[0].neuron) : null);
    return there ? "" : `There is no neuron ${neuron} in ${model}: they are numbered 0 to ${rows.length - 1}.`;
  }
  async function follow() {
    const [model, neuron] = decodeURIComponent(location.hash.slice(1)).split("/");
    const there = ATLAS_MODELS.some((one) => one.model === model);
    const number = there && /^\d+$/.test(neuron || "") ? Number(neuron) : null;
    const problem = await show(there ? model : ATLAS_MODELS[0].model, number);
    say(model && !there ? `There is no measurement of ${model}: this is ${state.model}.` : problem);
  }
  async function start() {
    for (const { model, name, neurons, head } of ATLAS_MODELS) {
      at("model").add(new Option(`${name} (${neurons} neurons, head of ${head})`, model));
    }
    const box = Object.assign(document.createElement("table"), { id: "atlas-tip", hidden: true });
    box.setAttribute("aria-hidden", "true"); // what it says stands in the panel of a selected neuron
    document.body.append(box);
    at("model").addEventListener("change", (event) => show(event.target.value, null).then(say));
    at("search").addEventListener("input", (event) => search(event.target.value));
    at("highlight").addEventListener("click", highlight);
    at("clear").addEventListener("click", clear);
    at("previous").addEventListener("click", () => step(-1));
    at("next").addEventListener("click", () => step(1));
    for (const name of ["rank", "scatter", "gradient"]) at(name).addEventListener("keydown", pressed);
    window.addEventListener("hashchange", follow);
    await follow();
    document.getElementById("atlas-static").hidden = true;
    document.getElementById("atlas-app").dataset.ready = "yes";
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }
  start().catch((error) => { // the static page stays
    delete document.getElementById("atlas-app").dataset.ready;
    document.getElementById("atlas-static").hidden = false;
    console.error(error);
  });
})();
