// A run of an evaluation: its accuracy, its questions, and one question with its answers as the workbench shows it.

import { choices, download, h, replace } from "./dom.js";
import { toCsv } from "./exports.js";
import { EVIDENCE, filtered, ORDERS } from "./filters.js";
import { readLink, writeLink } from "./link.js";
import { LongList } from "./long_list.js";
import { clock, counted, isInside, percent, spanText } from "./text.js";
import { listenToKeys, View } from "./view.js";

const QUESTION_HEIGHT = 76, GROWTH_SECONDS = 5, SAVE_DELAY_MS = 600;
const OUTCOMES = [["", "right or wrong"], ["right", "right"], ["wrong", "wrong"], ["failed", "failed"]];

class RunPage {
  #source;
  #listed = [];
  #question = null; // the index of the question that is open
  #noteTimer = 0;

  constructor(source, name) {
    [this.#source, this.name] = [source, name];
  }

  async start(root) {
    replace(root, h("h1", {}, this.name), h("p", { role: "status" }, "reading the run"));
    this.view = new View(this.#source);
    this.#take(await this.#source.questions(this.name));
    this.list = new LongList(QUESTION_HEIGHT, (question) => this.#row(question));
    this.filters = this.#makeFilters();
    this.heading = h("h1", {}, this.name);
    this.summary = h("div");
    this.count = h("p", { class: "small", role: "status" });
    this.overview = h("div", {}, this.heading, this.summary, h("form", { class: "filters", "aria-label": "filters" }, Object.values(this.filters).map(({ element }) => element)),
      h("div", { class: "row" }, this.count,
        h("button", { type: "button", class: "small", onclick: () => this.#clear() }, "clear the filters"),
        h("button", { type: "button", class: "small", onclick: () => this.#exportNotes() }, "save notes (CSV)")),
      this.list.element);
    this.detail = h("div", { hidden: true });
    replace(root, this.overview, this.detail);
    listenToKeys(this.view, this.filters.text.control);
    window.addEventListener("popstate", () => this.#readLink());
    window.addEventListener("hashchange", () => this.#readLink());
    this.#readLink();
    setInterval(() => this.#grow(), 1000 * GROWTH_SECONDS);
  }

  #take(run) {
    this.run = run;
    for (const question of run.questions) {
      question.search = `${question.question} ${question.options.join(" ")} ${question.key}`.toLowerCase();
      question.note = run.notes[question.key] ?? "";
    }
  }

  async #grow() {
    const { num_rows } = await this.#source.numRows(this.name).catch(() => this.run);
    if (num_rows === this.run.num_rows) return;
    const notes = Object.fromEntries(this.run.questions.map((question) => [question.key, question.note]));
    const run = await this.#source.questions(this.name);
    this.#take({ ...run, notes: { ...run.notes, ...notes } });
    this.#update();
  }

  #label(index) {
    const { arm, budget } = this.run.conditions[index];
    return `${arm}, ${budget}`;
  }

  // --- the list ------------------------------------------------------------------------------------------------------

  #makeFilters() {
    const labels = this.run.conditions.map((_, index) => [index, this.#label(index)]);
    const select = (label, values, name = label) => ({ label, name, control: choices({ onchange: () => this.#apply() }, values) });
    const videos = [...new Set(this.run.questions.map((question) => question.video))];
    const filters = {
      text: { label: "text", control: h("input", { type: "search", placeholder: "find ( / )", oninput: () => this.#apply() }) },
      a: select("arm", [["", "any arm"], ...labels]),
      outcome: select("is", OUTCOMES, "this arm is"),
      evidence: select("evidence", [["", "any"], ...Object.entries(EVIDENCE)]),
      b: select("and other arm", [["", "none"], ...labels]),
      other: select("is", OUTCOMES, "the other arm is"),
      tag: select("type", [["", "any"], ...this.run.tags]),
      video: select("video", [["", "any"], ...videos]),
      warnings: select("warnings", [["", "any"], ["1", "with warnings"]]),
      note: select("notes", [["", "any"], ["1", "with a note"]]),
      sort: select("order", Object.entries(ORDERS)),
    };
    for (const filter of Object.values(filters)) {
      filter.element = h("label", {}, h("span", {}, filter.label), filter.control);
      filter.control.setAttribute("aria-label", filter.name ?? filter.label);
    }
    return filters;
  }

  get #values() {
    return Object.fromEntries(Object.entries(this.filters).map(([name, { control }]) => [name, control.value]));
  }

  #apply() {
    this.#save();
    this.#update();
  }

  #clear() {
    for (const [name, { control }] of Object.entries(this.filters)) control.value = name === "sort" ? "asked" : "";
    this.#apply();
  }

  #save(isStep = false) {
    const { sort, ...values } = this.#values;
    const open = this.#question === null ? {} : { question: this.#question, left: this.left?.value, beside: this.beside?.value };
    writeLink({ run: readLink().get("run"), ...values, sort: sort === "asked" ? "" : sort, ...open }, { isStep });
  }

  #update() {
    this.#listed = filtered(this.run.questions, this.#values);
    const { num_rows, num_failed, is_growing } = this.run;
    replace(this.summary, this.#table(),
      h("p", { class: "small" }, `${counted(num_rows, "answer")}, ${num_failed} failed${is_growing ? "; the run goes on" : ""}`));
    this.count.textContent = `${this.#listed.length} of ${counted(this.run.questions.length, "question")}`;
    this.list.show(this.#listed);
  }

  /** Accuracy of all conditions, in all and by type; each figure leads to the questions behind it. */
  #table() {
    const { conditions, tags } = this.run;
    const cell = (condition, index, tag) => {
      const [right, total] = tag === "" ? condition.all : condition.tags[tag] ?? [0, 0];
      if (!total) return h("td", {});
      const link = (outcome, text) => h("a", { href: this.#linkTo({ a: index, outcome, tag }), title: `${counted(total, "answer")}` }, text);
      if (tag !== "") return h("td", {}, link("right", percent(right / total)));
      return h("td", { class: "share" }, h("span", { class: "share-bar", "--share": percent(right / total) }),
        link("right", percent(right / total)), " ", link("wrong", `${total - right} wrong`));
    };
    return h("div", { class: "wide-table accuracy-box", tabindex: "0", role: "region", "aria-label": "accuracy" }, h("table", { class: "accuracy" },
      h("thead", {}, h("tr", {}, ["arm", "frames", "accuracy", ...tags].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, conditions.map((condition, index) => h("tr", {}, h("th", { scope: "row" }, condition.arm), h("td", {}, condition.budget),
        ["", ...tags].map((tag) => cell(condition, index, tag)))))));
  }

  #linkTo(values) {
    const run = readLink().get("run");
    const parameters = new URLSearchParams(Object.entries({ ...(run ? { run } : {}), ...values }).filter(([, value]) => value !== ""));
    return `#${parameters}`;
  }

  #row(question) {
    const chips = question.answers.map((answer, index) => {
      const state = !answer ? "absent" : answer.failed ? "failed" : answer.correct ? "right" : "wrong";
      return h("span", { class: `chip ${state}`, title: `${this.#label(index)}: ${state}${answer?.evidence ? `; evidence ${EVIDENCE[answer.evidence]}` : ""}` });
    });
    const right = question.answers.filter((answer) => answer?.correct).length;
    return h("a", { class: "question-row", href: "#", onclick: (event) => { event.preventDefault(); this.#open(question.index, true); } },
      h("span", { class: "question-text" }, question.question),
      h("span", { class: "small" }, [question.video, ...question.tags, question.note ? "note" : null].filter(Boolean).join(" \u00b7 ")),
      h("span", { class: "chips", role: "img", "aria-label": `${right} of ${question.answers.filter(Boolean).length} right` }, chips));
  }

  #readLink() {
    const link = readLink();
    for (const [name, { control }] of Object.entries(this.filters)) control.value = link.get(name) ?? (name === "sort" ? "asked" : "");
    const { conditions } = this.run, arm = link.get("arm");
    const named = conditions.findIndex((one) => one.arm === arm && String(one.budget) === link.get("budget"));
    if (named !== -1) this.filters.a.control.value = named; // a report names an arm; the page counts them
    this.#update();
    const question = link.get("question");
    if (question === null) this.#close();
    else this.#open(Number(question), false);
  }

  #exportNotes() {
    const rows = this.run.questions.filter((question) => question.note).map((question) => [question.key, question.question, question.note]);
    download(`${this.name}-notes.csv`, toCsv([["key", "question", "note"], ...rows]), "text/csv");
  }

  // --- one question --------------------------------------------------------------------------------------------------

  async #open(index, isStep) {
    this.#question = index;
    if (isStep) {
      this.left = this.beside = undefined;
      this.#save(true);
    }
    [this.overview.hidden, this.detail.hidden] = [true, false];
    replace(this.detail, h("p", { role: "status" }, "reading the question"));
    try {
      this.#drawQuestion(await this.#source.question(this.name, index));
    } catch (error) {
      replace(this.detail, this.#backButton(), h("p", { class: "warning" }, error.message));
    }
  }

  #close() {
    this.#question = null;
    [this.overview.hidden, this.detail.hidden] = [false, true];
  }

  #backButton() {
    return h("button", { type: "button", onclick: () => { this.#close(); this.#save(true); } }, "\u2190 all questions");
  }

  #drawQuestion(content) {
    content.answers.forEach((entry) => expand(entry, content.rankings));
    const { video, answers, question, evidence_seconds } = content, link = readLink();
    const labels = answers.map(({ arm, budget }, index) => [index, `${arm}, ${budget}`]);
    const filtered = Number(this.filters.a.control.value || -1);
    const chosen = answers.findIndex(({ condition }) => condition === filtered);
    const searching = answers.findIndex(({ answer }) => answer.evidence.length);
    const left = link.get("left") ?? Math.max(0, chosen === -1 ? searching : chosen);
    const isOther = ({ arm, budget, answer }) => budget === answers[left].budget && (answers[left].arm === "uniform" ? answer.evidence.length : arm === "uniform");
    const other = answers.findIndex(isOther);
    this.left = choices({ onchange: () => this.#compare(content) }, labels, left);
    this.beside = choices({ onchange: () => this.#compare(content) }, [["", "nothing"], ...labels], link.get("beside") ?? (other === -1 ? "" : other));
    const place = this.#listed.findIndex((one) => one.index === content.index);
    const go = (by) => this.#listed[place + by] === undefined || place === -1 ? null : () => this.#open(this.#listed[place + by].index, true);
    const listed = this.run.questions[content.index];
    const saved = h("span", { class: "small", role: "status" });
    const note = h("textarea", { rows: 2, placeholder: "a note", "aria-label": "note", oninput: () => this.#saveNote(listed, note.value, saved) }, listed.note);
    const step = (text, work) => h("button", { type: "button", disabled: work === null, onclick: work }, text);
    const { view } = this;
    replace(this.detail,
      h("div", { class: "row" }, this.#backButton(), step("previous", go(-1)), step("next", go(1)),
        place === -1 ? null : h("span", { class: "small" }, `${place + 1} of ${this.#listed.length}`)),
      h("h1", {}, question),
      h("p", { class: "small" }, [video.name, clock(video.duration_seconds), ...content.tags,
        evidence_seconds ? `annotated time ${spanText({ start_seconds: evidence_seconds[0], end_seconds: evidence_seconds[1] })}` : null].filter(Boolean).join(" \u00b7 ")),
      h("div", { class: "row" }, h("label", {}, h("span", {}, "answer of"), this.left), h("label", {}, h("span", {}, "beside"), this.beside)),
      h("div", { class: "top" }, view.player.element, h("div", { class: "ask" }, h("label", {}, h("span", {}, "note"), note), saved, this.#outcomes(answers))),
      view.timeline.element, view.columns, view.evidence, view.exports);
    view.open(video);
    if (evidence_seconds) view.player.seek(evidence_seconds[0]);
    this.#compare(content);
  }

  /** What every arm answered. */
  #outcomes(answers) {
    return h("div", { class: "wide-table outcomes", tabindex: "0", role: "region", "aria-label": "all answers" }, h("table", {},
      h("thead", {}, h("tr", {}, ["arm", "frames", "answer", "evidence"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, answers.map(({ arm, budget, answer, evidence }, index) => h("tr", {},
        h("th", { scope: "row" }, h("button", { type: "button", class: "plain", onclick: () => { this.left.value = index; this.left.dispatchEvent(new Event("change")); } }, arm)),
        h("td", {}, budget), h("td", {}, h("span", { class: `chip ${answer.error ? "failed" : answer.correct ? "right" : "wrong"}` }), ` ${answer.error ? "failed" : answer.option ?? answer.answer}`),
        h("td", { class: "small" }, evidence === null ? "" : EVIDENCE[evidence]))))));
  }

  #compare({ answers }) {
    const indices = [this.left.value, this.beside.value].filter((value, index, all) => value !== "" && all.indexOf(value) === index);
    this.view.show(indices.map(Number).map((index) => ({ label: `${answers[index].arm}, ${counted(answers[index].budget, "frame")}`, answer: answers[index].answer })));
    this.#save();
  }

  #saveNote(question, text, saved) {
    question.note = text;
    clearTimeout(this.#noteTimer);
    this.#noteTimer = setTimeout(async () => {
      saved.textContent = await this.#source.saveNote(this.name, question.key, text).then(() => "saved", (error) => error.message);
    }, SAVE_DELAY_MS);
  }
}

/** Give an answer its clips: answers that share the scores of clips have them once. */
function expand({ answer, ranking }, rankings) {
  const times = answer.frames.map((frame) => frame.time_seconds);
  answer.evidence = rankings[ranking].map(([start_seconds, end_seconds, embed_score, rerank_score]) =>
    ({ start_seconds, end_seconds, embed_score, rerank_score, frames: times.filter((seconds) => isInside(seconds, [start_seconds, end_seconds])) }));
  answer.clips = [...answer.evidence].sort((one, other) => one.start_seconds - other.start_seconds);
}

/** Fill the page of a run. */
export function startRun(root, source, name) {
  return new RunPage(source, name).start(root);
}
