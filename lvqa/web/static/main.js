// What each page starts with: its <main> says which page it is.

import { h, replace } from "./dom.js";
import { startLibrary } from "./library.js";
import { readLink } from "./link.js";
import { startRun } from "./run.js";
import { ServerSource, StoredSource } from "./source.js";
import { startWorkbench } from "./workbench.js";
import { listenToKeys, View } from "./view.js";

/** The list of runs, or the run that is the only one or that the address names. */
async function startStoredRuns(root) {
  const source = new StoredSource(), { runs } = await source.runs();
  const name = readLink().get("run") ?? (runs.length === 1 ? runs[0].name : null);
  if (name !== null) return startRun(root, source, name);
  window.addEventListener("hashchange", () => location.reload());
  replace(root, h("h1", {}, "Runs"), h("ul", {}, runs.map((run) => h("li", {}, h("a", { href: `#${new URLSearchParams({ run: run.name })}` }, run.name)))));
}

async function startRuns(root) {
  const { runs } = await new ServerSource().runs();
  const empty = h("p", {}, "No run is served: lvqa serve --runs DIR, or lvqa view RUN");
  replace(root, h("h1", {}, "Runs"), runs.length ? h("ul", { class: "runs" }, runs.map(({ name, folder }) =>
    h("li", {}, h("a", { href: `/runs/${encodeURIComponent(name)}` }, name), h("span", { class: "small" }, ` ${folder}`)))) : empty);
}

/** One stored answer, with those beside it. */
async function startAnswer(root) {
  const { video, answers, details } = window.lvqa.answer, view = new View(new StoredSource());
  const [first] = answers;
  replace(root, h("h1", {}, first.answer.question), h("p", { class: "small" }, details), view.player.element, view.timeline.element,
    view.columns, view.evidence, view.exports, root.querySelector(".made-with"));
  view.open(video);
  view.show(answers);
  listenToKeys(view, null);
}

/** Ask for the token, and change it into the cookie. */
function askForToken(root) {
  const token = h("input", { type: "password", autocomplete: "current-password", "aria-label": "token", required: true });
  const status = h("p", { role: "status", class: "status" });
  const send = async (event) => {
    event.preventDefault();
    try {
      await new ServerSource().call("POST", "/api/login", { token: token.value });
      location.reload();
    } catch (error) {
      status.textContent = error.message;
    }
  };
  replace(root, h("h1", {}, "This server asks for a token"),
    h("p", {}, "Whoever started it gave it one, with --token or in LVQA_TOKEN."),
    h("form", { class: "row", onsubmit: send }, token, h("button", { class: "primary" }, "Enter")), status);
  token.focus();
}

const PAGES = {
  library: startLibrary,
  workbench: startWorkbench,
  runs: startRuns,
  run: (root) => startRun(root, new ServerSource(), root.dataset.run),
  stored_runs: startStoredRuns,
  answer: startAnswer,
};

const root = document.querySelector("main");
PAGES[root.dataset.page](root).catch((error) => {
  if (error.status === 401) askForToken(root);
  else replace(root, h("p", { class: "warning", role: "alert" }, error.message));
});
