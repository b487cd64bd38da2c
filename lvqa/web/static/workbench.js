// The workbench: questions about one video, asked of the server, two methods side by side.

import { answerLine } from "./answer.js";
import { choices, h, replace } from "./dom.js";
import { readLink, writeLink } from "./link.js";
import { ServerSource } from "./source.js";
import { clock } from "./text.js";
import { listenToKeys, View } from "./view.js";

const BUDGETS = [8, 16, 32, 64], NONE = "none", TIME_DELAY_MS = 800;

class Workbench {
  #source = new ServerSource();
  #turns = []; // [{question, options, entries}]: one conversation
  #current = -1; // the turn that is shown
  #abort = null;
  #timeTimer = 0;

  async start(root) {
    const [video, status] = await Promise.all([
      this.#source.call("GET", `/api/videos/${root.dataset.video}`), this.#source.call("GET", "/api/status")]);
    this.video = video;
    this.view = new View(this.#source, () => this.#noteTime());
    this.#build(root, status);
    this.view.open(video);
    listenToKeys(this.view, this.question);
    window.addEventListener("hashchange", () => location.reload());
    await this.#restore();
  }

  #build(root, status) {
    const link = readLink(), field = (label, control) => h("label", {}, h("span", {}, label), control);
    this.question = h("textarea", { rows: 2, "aria-label": "question", placeholder: "Ask about this video ( / )", maxlength: 8000, onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); this.#ask(); }
    } });
    this.options = h("textarea", { rows: 3, placeholder: "one option a line, or none" });
    this.method = choices({}, status.methods, link.get("method") ?? status.method);
    this.frames = choices({}, [...new Set([...BUDGETS, status.frames, Number(link.get("frames")) || status.frames])].sort((a, b) => a - b), link.get("frames") ?? status.frames);
    this.beside = choices({}, [[NONE, "nothing"], ...status.methods], link.get("beside") ?? "uniform");
    this.settings = h("textarea", { rows: 3, placeholder: "rerank.pool=20", spellcheck: "false" }, (link.getAll("set")).join("\n"));
    this.button = h("button", { type: "submit", class: "primary" }, "Ask");
    this.stop = h("button", { type: "button", hidden: true, onclick: () => this.#abort?.abort() }, "Stop");
    this.status = h("p", { class: "status", role: "status" });
    this.conversation = h("ol", { class: "conversation", "aria-label": "conversation" });
    this.fresh = h("button", { type: "button", hidden: true, onclick: () => this.#clear() }, "New conversation");
    const settings = status.settings ?? {};
    const form = h("form", { class: "ask", onsubmit: (event) => { event.preventDefault(); this.#ask(); } },
      this.conversation, this.question,
      h("details", {}, h("summary", {}, "Options and settings"),
        field("options", this.options),
        field("settings, one a line", this.settings),
        h("p", { class: "small" }, Object.entries(settings).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join("  "))),
      h("div", { class: "row" }, field("method", this.method), field("frames", this.frames), field("beside it", this.beside)),
      h("div", { class: "row" }, this.button, this.stop, this.fresh), this.status);
    const { view } = this;
    replace(root, h("div", { class: "top" }, view.player.element, form), view.timeline.element, view.columns, view.evidence, view.exports);
  }

  #request(method, history, question, options) {
    const settings = this.settings.value.split("\n").map((line) => line.trim()).filter(Boolean);
    return { video: this.video.id, question, options, method, frames: Number(this.frames.value), history, settings };
  }

  async #ask(question = this.question.value.trim(), options = this.options.value.split("\n").map((line) => line.trim()).filter(Boolean)) {
    if (!question || this.#abort !== null) return;
    const methods = [this.method.value, this.beside.value].filter((method, index, all) => method !== NONE && all.indexOf(method) === index);
    const turn = { question, options, entries: [] }, earlier = this.#turns.slice();
    this.#abort = new AbortController();
    [this.button.disabled, this.stop.hidden] = [true, false];
    this.status.classList.remove("warning");
    try {
      for (const [row, method] of methods.entries()) {
        const history = earlier.filter((one) => one.entries[0]).map((one) => ({ question: one.question, answer: (one.entries[row] ?? one.entries[0]).answer.answer }));
        const onEvent = (event) => { this.status.textContent = describe(event, method); };
        const answer = await this.#source.stream("POST", "/api/ask", this.#request(method, history, question, options), onEvent, this.#abort.signal);
        turn.entries.push({ label: `${method}, ${this.frames.value} frames`, answer });
        if (row === 0) this.#turns.push(turn);
        this.#show(this.#turns.length - 1);
      }
      [this.status.textContent, this.question.value, this.options.value] = ["", "", ""];
      this.#save();
    } catch (error) {
      this.status.classList.add("warning");
      this.status.textContent = error.name === "AbortError" ? "stopped" : error.message;
    } finally {
      this.#abort = null;
      [this.button.disabled, this.stop.hidden] = [false, true];
    }
  }

  #show(index) {
    this.#current = index;
    this.view.show(this.#turns[index]?.entries ?? []);
    replace(this.conversation, this.#turns.map((turn, number) => h("li", { "aria-current": number === index ? "true" : null },
      h("button", { type: "button", onclick: () => this.#show(number) }, turn.question),
      turn.entries[0] ? h("p", {}, answerLine(turn.entries[0].answer)) : null)));
    this.fresh.hidden = this.#turns.length === 0;
    this.button.textContent = this.#turns.length ? "Ask a follow-up" : "Ask";
  }

  #clear() {
    this.#turns = [];
    this.#show(-1);
    this.#save();
    this.question.focus();
  }

  #save() {
    const values = { method: this.method.value, frames: this.frames.value, beside: this.beside.value };
    values.set = this.settings.value.split("\n");
    this.#turns.forEach((turn, index) => {
      values[`q${index}`] = turn.question;
      values[`o${index}`] = turn.options;
    });
    writeLink({ ...values, t: Math.round(10 * this.view.player.seconds) / 10 || null });
  }

  #noteTime() {
    clearTimeout(this.#timeTimer);
    this.#timeTimer = setTimeout(() => this.#turns.length && this.#save(), TIME_DELAY_MS);
  }

  /** Ask again what the address holds. */
  async #restore() {
    const link = readLink(), seconds = Number(link.get("t"));
    if (seconds) this.view.player.seek(seconds);
    for (let index = 0; link.has(`q${index}`); index++) await this.#ask(link.get(`q${index}`), link.getAll(`o${index}`));
  }
}

function describe(event, method) {
  const share = event.total ? ` ${event.done} of ${event.total}` : "";
  if (event.event === "waiting") return event.position ? `${method}: waiting for ${event.position} others` : `${method}: starting`;
  if (event.event === "frames") return `${method}: answering from frames at ${event.frames.slice(0, 6).map(clock).join(", ")} ...`;
  return `${method}: ${event.event}${share}`;
}

/** Fill the page of a video. */
export function startWorkbench(root) {
  return new Workbench().start(root);
}
