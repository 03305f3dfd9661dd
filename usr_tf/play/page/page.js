// Page of `usr-tf play`. Texts of the logs are put in as text nodes alone, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const state = {
  shop: null, user: "", scenario: "", task: "", query: null, request: null, moment: null, items: null,
  edits: { inputs: {}, items: {}, history: [] },
  page: null, before: null, item: null, column: 0, acted: 0, gap: 0, asked: 0,
};

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "onclick" || name === "onchange" || name === "onmouseenter") node[name] = value;
    else if (name === "text") node.textContent = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

async function call(name, body = {}) {
  const response = await fetch(`api/${name}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function attempt(work) {
  $("problem").hidden = true;
  try {
    return await work();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    return null;
  }
}

const number = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const moment = (ms) => `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
function age(ms) {
  const units = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]];
  const [name, size] = units.find(([, each]) => ms >= each) || ["s", 1000];
  return `${Math.round(ms / size)} ${name} ago`;
}
function asText(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(asText).join(", ");
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

function pageRequest() {
  return {
    user: state.user, scenario: state.scenario, task: state.task, query: state.query, request_id: state.request,
    moment: state.moment, items: state.items, edits: state.edits,
  };
}
const noEdits = () => ({ inputs: {}, items: {}, history: [] });

// Opens another page: a logged request, a query or a feed. Nothing of the page before is compared with it.
function open(changes) {
  Object.assign(state, { query: null, request: null, items: null, edits: noEdits(), before: null, acted: 0, item: null },
    changes);
  return rank();
}

async function rank() {
  const asked = ++state.asked;
  $("rankings").classList.add("busy");
  const page = await attempt(() => call("rank", { page: pageRequest() }));
  if (asked !== state.asked) return;
  $("rankings").classList.remove("busy");
  if (page) {
    state.page = page;
    state.moment = page.moment;
    showPage();
  }
  document.body.dataset.ranked = asked;
}

function showPage() {
  const { page } = state;
  document.querySelectorAll("#scenarios button").forEach((button) =>
    button.setAttribute("aria-selected", button.dataset.scenario === state.scenario));
  document.querySelectorAll("#slates button").forEach((button) =>
    button.setAttribute("aria-pressed", button.dataset.request === state.request));
  const queries = state.shop.scenarios.find((each) => each.name === state.scenario).queries;
  $("query").hidden = !queries;
  $("query").value = page.query || "";
  $("go").textContent = queries ? "Search" : "Open the feed";
  const what = page.query ? `${state.scenario} “${page.query}”` : state.scenario;
  const source = page.request_id ? `logged request ${page.request_id}` : "candidates of the catalogue";
  const edits = state.edits.history.length + Object.keys(state.edits.inputs).length
    + Object.values(state.edits.items).reduce((sum, values) => sum + Object.keys(values).length, 0);
  $("where").replaceChildren(
    `${what} · ${source} · ${page.items.length} items · ${moment(page.moment)}`,
    state.acted ? ` · after ${state.acted} action${state.acted > 1 ? "s" : ""}` : "",
    edits ? element("button", { id: "undo", text: `Undo ${edits} edit${edits > 1 ? "s" : ""}`, onclick: undoEdits }) : "",
  );
  showHistory();
  showRankings();
  showItem();
}

function ranksOf(page) {
  return page.rankings.map((ranking) => new Map(ranking.order.map((row, place) => [page.items[row].id, place])));
}

// Places that an item has gone up in each ranking, since the page that this one is compared with.
function moves() {
  const { page, before } = state;
  if (!before || before.rankings.length !== page.rankings.length) return () => 0;
  const old = ranksOf(before);
  return (column, item, place) => (old[column].has(item) ? old[column].get(item) - place : 0);
}
function arrow(moved) {
  return element("small", {
    class: moved > 0 ? "up" : "down", text: moved ? `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}` : "",
  });
}

function showRankings() {
  const { page } = state;
  const moved = moves();
  state.column = Math.min(state.column, Math.max(page.rankings.length - 1, 0));
  $("rankings").style.setProperty("--columns", page.rankings.length);
  $("tabs").replaceChildren(...page.rankings.map((ranking, column) => element("button", {
    text: ranking.name, "aria-pressed": String(column === state.column), onclick: () => chooseColumn(column),
  })));
  $("rankings").replaceChildren(...page.rankings.map((ranking, column) => {
    const second = ranking.kind === "model" && ranking.model > 0;
    const rows = ranking.order.map((row, place) => {
      const item = page.items[row];
      const score = ranking.scores[state.task];
      const chips = item.actions.map((action) => element("span", { class: "chip", text: action }));
      return element("li", {}, element("button", {
        class: `row${item.id === state.item ? " chosen" : ""}`, "data-item": item.id, "data-place": place,
        "aria-label": `${place + 1}: ${item.title}`, onclick: () => choose(item.id, column),
        onmouseenter: () => highlight(item.id),
      },
      element("span", { class: "rank", text: place + 1 }),
      element("span", { class: "title" }, item.title, " ", ...chips),
      element("span", { class: "score", text: score ? number(score[row], 3) : "" },
        arrow(moved(column, item.id, place))),
      ));
    });
    const clicks = ranking.expected === undefined ? ""
      : `oracle’s ${state.task}, top 3: ${number(ranking.expected, 3)}`;
    return element("section", {
      class: `ranking ${ranking.kind}${second ? " second" : ""}${column === state.column ? " current" : ""}`,
      "data-kind": ranking.kind, "aria-label": ranking.name,
    },
    element("h2", { text: ranking.name }), element("p", {}, element("small", { text: clicks })), element("ol", {}, ...rows));
  }));
  if (!page.items.length) {
    $("rankings").replaceChildren(element("p", { class: "empty", text: "No item has a word of this query." }));
  }
}

function highlight(item) {
  document.querySelectorAll(".row").forEach((row) => row.classList.toggle("hover", row.dataset.item === item));
}

function chooseColumn(column) {
  state.column = column;
  showRankings();
}

function choose(item, column = state.column) {
  state.item = item;
  state.column = column;
  showRankings();
  showItem();
  focusRow(item);
}

function focusRow(item) {
  const ranking = document.querySelectorAll(".ranking")[state.column];
  const row = ranking && [...ranking.querySelectorAll(".row")].find((each) => each.dataset.item === item);
  if (row) row.focus({ preventScroll: false });
}

// The item's panel: scores, actions, features to edit, and why.
function showItem() {
  const panel = $("item");
  const row = state.page.items.findIndex((each) => each.id === state.item);
  panel.hidden = row < 0;
  $("layout").classList.toggle("open", row >= 0);
  if (row < 0) {
    state.item = null;
    return;
  }
  const item = state.page.items[row];
  const tasks = state.shop.tasks.map((task) => task.name);
  const moved = moves();
  const scores = state.page.rankings.map((ranking, column) => element("tr", {},
    element("td", { text: ranking.name }),
    element("td", {}, arrow(moved(column, item.id, ranking.order.indexOf(row))), ` ${ranking.order.indexOf(row) + 1}`),
    ...tasks.map((task) => element("td", { text: ranking.scores[task] ? number(ranking.scores[task][row]) : "–" }))));
  const chain = state.shop.tasks.map((task) => task.action);
  const actions = [...chain, ...state.shop.actions.filter((action) => !chain.includes(action))];
  panel.replaceChildren(
    element("button", { class: "close", text: "✕", "aria-label": "Close", onclick: close }),
    element("h2", { text: item.title }),
    element("p", { class: "faint", text: item.id }),
    element("div", { class: "acts" }, ...actions.map((action) => element("button", {
      class: action === chain[0] ? "main" : "", "data-action": action, text: action, onclick: () => act(action),
    }))),
    element("table", {},
      element("tr", {}, ...["", "rank", ...tasks].map((name) => element("th", { text: name }))), ...scores),
    element("h3", { text: "Why" }),
    element("div", { class: "acts" }, ...state.shop.models.map((model, place) => element("button", {
      "data-why": place, text: state.shop.models.length > 1 ? `Why, by ${model.name}` : "Why this score",
      disabled: !model.explains, title: model.explains ? "" : "needs --run", onclick: () => why(place),
    }))),
    element("div", { id: "why" }),
    element("h3", { text: "Edit the item" }), fields(item.features, state.edits.items[item.id] || {}, editItem),
    element("h3", { text: "Edit the request" }), fields(state.page.request, state.edits.inputs, editRequest),
  );
}

function fields(values, edits, edit) {
  return element("div", { class: "fields" }, ...Object.entries(values).flatMap(([name, value]) => {
    const id = `field-${edit.name}-${name}`;
    const input = element("input", {
      id, "data-feature": name, class: name in edits ? "edited" : "", autocomplete: "off", spellcheck: "false",
      onchange: (event) => edit(name, event.target.value),
    });
    input.value = name in edits ? edits[name] : asText(value);
    return [element("label", { for: id, text: name }), input];
  }));
}

function compareWithThis() {
  state.before = state.before || state.page;
}
function editItem(name, text) {
  compareWithThis();
  state.items = state.page.items.map((item) => item.id);
  const { items } = state.edits;
  state.edits = { ...state.edits, items: { ...items, [state.item]: { ...items[state.item], [name]: text } } };
  return rank();
}
function editRequest(name, text) {
  compareWithThis();
  state.items = state.page.items.map((item) => item.id);
  state.edits = { ...state.edits, inputs: { ...state.edits.inputs, [name]: text } };
  return rank();
}
function toggleAction(place) {
  compareWithThis();
  state.items = state.page.items.map((item) => item.id);
  const { history } = state.edits;
  const changed = history.includes(place) ? history.filter((each) => each !== place) : [...history, place];
  state.edits = { ...state.edits, history: changed };
  return rank();
}
function undoEdits() {
  state.edits = noEdits();
  state.before = null;
  return rank();
}

async function act(action) {
  const before = state.page;
  const done = await attempt(() => call("act", { page: pageRequest(), item: state.item, action }));
  if (!done) return;
  state.before = before;
  state.items = before.items.map((item) => item.id);
  state.moment = done.moment;
  state.gap = done.moment - done.acted;
  state.edits = noEdits();
  state.acted += 1;
  await rank();
}

async function why(model) {
  const place = $("why");
  const item = state.item;
  place.replaceChildren(element("p", { class: "faint", text: "Integrating gradients … the first time takes a while." }));
  const answer = await attempt(() => call("why", { page: pageRequest(), item, model }));
  if (item !== state.item || !$("why")) return;
  if (!answer) {
    $("why").replaceChildren();
    return;
  }
  const { explanation, apart } = answer;
  const task = explanation.tasks[state.task];
  const effects = Object.entries(task.features).map(([name, moved]) => ({
    name, value: explanation.values[name] || "", moved, unknown: (explanation.unknown[name] || []).length > 0,
  })).concat(explanation.history.map((action, index) => ({
    name: `${action.action}, ${age(action.age_ms)}`, value: action.item, moved: task.history[index], unknown: false,
  })));
  effects.sort((one, other) => Math.abs(other.moved) - Math.abs(one.moved));
  const shown = effects.slice(0, 12);
  const others = effects.slice(12);
  if (others.length) {
    const moved = others.reduce((sum, effect) => sum + effect.moved, 0);
    shown.push({ name: `${others.length} more`, value: "", moved, unknown: false });
  }
  const largest = Math.max(...shown.map((effect) => Math.abs(effect.moved)), 1e-9);
  $("why").replaceChildren(
    apart ? element("p", { class: "down", text: `The run's scores differ from the served ones by ${number(apart)}: `
      + "this version was not exported from it, or holds other counts." }) : "",
    element("p", { class: "faint", text: `${state.task} ${number(task.probability)}; ${number(task.baseline)} is usual `
      + `(${explanation.baseline}). Effects in log-odds, which add up.` }),
    element("div", { class: "effects" }, ...shown.flatMap((effect) => [
      element("span", { class: "name" }, effect.name.replaceAll("_", "_\u200b"), " ",
        element("small", { text: `${effect.value.slice(0, 60)}${effect.unknown ? " (unknown)" : ""}` })),
      bar(effect.moved / largest),
      element("span", { class: "number", text: `${effect.moved >= 0 ? "+" : "−"}${Math.abs(effect.moved).toFixed(2)}` }),
    ])),
  );
}

function bar(share) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 12");
  svg.setAttribute("preserveAspectRatio", "none");
  const shape = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    svg.append(node);
  };
  const width = Math.abs(share) * 50;
  shape("line", { x1: 50, x2: 50, y1: 0, y2: 12, class: "axis" });
  shape("rect", { x: share < 0 ? 50 - width : 50, y: 2, width, height: 8, class: share < 0 ? "minus" : "plus" });
  return svg;
}

function close() {
  const item = state.item;
  state.item = null;
  showItem();
  showRankings();
  if (item) focusRow(item);
}

function showHistory() {
  const { history, queries } = state.page;
  $("history-count").textContent = history.length || "none";
  $("history").replaceChildren(...history.map((action) => element("li", {
    class: [action.dropped ? "dropped" : "", state.acted && Math.abs(action.age - state.gap) < 10 ? "new" : ""].join(" ").trim(),
  },
  element("span", {}, action.title || action.item_id || "item", element("small", {
    text: [action.action, action.scenario, age(action.age)].filter(Boolean).join(" · "),
  })),
  element("button", {
    text: action.dropped ? "↺" : "✕", "aria-label": action.dropped ? "Put this action back" : "Leave this action out",
    onclick: () => toggleAction(action.place),
  }))));
  $("past").hidden = !queries.length;
  $("queries-count").textContent = queries.length;
  $("queries").replaceChildren(...[...queries].reverse().map((each) =>
    element("li", {}, each.query, " ", element("small", { text: age(each.age) }))));
}

async function chooseUser(user) {
  const person = await attempt(() => call("user", { user }));
  if (!person) return;
  state.user = user;
  $("user").value = user;
  const about = Object.entries(person.features).filter(([name]) => name !== "user_id")
    .map(([name, value]) => `${name} ${asText(value)}`).join(" · ");
  $("profile").textContent = person.known ? about || "no features" : "unknown to the logs: a new user";
  $("slates-count").textContent = person.slates.length || "none";
  $("slates").replaceChildren(...person.slates.map((slate) => {
    const done = Object.entries(slate.actions).map(([action, count]) => `${count} ${action}`);
    return element("li", {}, element("button", {
      "data-request": slate.request_id, "data-scenario": slate.scenario,
      onclick: () => open({ scenario: slate.scenario, request: slate.request_id, moment: null }),
    }, slate.query ? `${slate.scenario} “${slate.query}”` : slate.scenario,
    element("small", { text: [moment(slate.moment), `${slate.items} items`, ...done].join(" · ") })));
  }));
  const first = person.slates.find((slate) => slate.scenario === state.scenario);
  await open({ request: first ? first.request_id : null, moment: null });
}

function chooseScenario(scenario) {
  if (state.page) open({ scenario, moment: state.moment });
}

function moveFocus(step) {
  const ranking = document.querySelectorAll(".ranking")[state.column];
  const rows = ranking ? [...ranking.querySelectorAll(".row")] : [];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  rows[Math.min(Math.max(at < 0 ? 0 : at + step, 0), rows.length - 1)].focus();
}

function moveColumn(step) {
  const item = document.activeElement.dataset.item;
  state.column = Math.min(Math.max(state.column + step, 0), state.page.rankings.length - 1);
  showRankings();
  if (item) focusRow(item);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !state.page) return;
  if (event.key === "Escape") {
    if (event.target.matches("input")) event.target.blur();
    else if (state.item) close();
    return;
  }
  if (event.target.matches("input, select, textarea")) return;
  const focused = document.activeElement.dataset.item;
  const withItem = (work) => () => {
    if (focused && focused !== state.item) choose(focused);
    if (state.item) work();
  };
  const chain = state.shop.tasks.map((task) => task.action);
  const keys = {
    "/": () => { if (!$("query").hidden) { $("query").focus(); $("query").select(); } },
    u: () => { $("user").focus(); $("user").select(); },
    j: () => moveFocus(1), ArrowDown: () => moveFocus(1), k: () => moveFocus(-1), ArrowUp: () => moveFocus(-1),
    ArrowRight: () => moveColumn(1), ArrowLeft: () => moveColumn(-1),
    c: withItem(() => act(chain[0])), b: withItem(() => act(chain[chain.length - 1])),
    w: withItem(() => { if (state.shop.models[0].explains) why(0); }),
    "?": () => $("help").showModal(),
  };
  state.shop.scenarios.slice(0, 9).forEach((each, place) => { keys[place + 1] = () => chooseScenario(each.name); });
  const work = keys[event.key];
  if (work) {
    event.preventDefault();
    work();
  }
});

async function start() {
  state.shop = await attempt(() => call("shop"));
  if (!state.shop) return;
  const { shop } = state;
  state.scenario = shop.scenarios[0].name;
  state.task = shop.tasks[0].name;
  $("scenarios").replaceChildren(...shop.scenarios.map((each, place) => element("button", {
    role: "tab", "data-scenario": each.name, text: each.name, title: `Key ${place + 1}`,
    onclick: () => chooseScenario(each.name),
  })));
  $("task").replaceChildren(...shop.tasks.map((task) => element("option", { value: task.name, text: task.name })));
  $("task").onchange = () => { state.task = $("task").value; state.before = null; rank(); };
  $("ask").onsubmit = (event) => {
    event.preventDefault();
    const { queries } = shop.scenarios.find((each) => each.name === state.scenario);
    open({ query: queries ? $("query").value : null, moment: state.moment });
  };
  $("find").onsubmit = (event) => event.preventDefault(); // Enter fires a change, too
  $("user").onchange = () => { if ($("user").value !== state.user) chooseUser($("user").value); };
  $("user").oninput = () => offerUsers($("user").value);
  $("reset").onclick = async () => { if (await attempt(() => call("reset"))) chooseUser(state.user); };
  $("keys").onclick = () => $("help").showModal();
  if (matchMedia("(max-width: 720px)").matches) {
    document.querySelectorAll("aside details").forEach((each) => { each.open = false; });
  }
  const users = await offerUsers("");
  await chooseUser(users.length ? users[0].id : "");
}

async function offerUsers(find) {
  const answer = await attempt(() => call("users", { find }));
  const users = answer ? answer.users : [];
  $("users").replaceChildren(...users.map((each) => element("option", {
    value: each.id, text: `${each.requests} requests`,
  })));
  return users;
}

start();
