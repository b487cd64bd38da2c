// One video with answers to one question: player, timeline, the answers side by side, the evidence, and what can be saved.

import { answerColumn } from "./answer.js";
import { download, h, replace } from "./dom.js";
import { evidenceCards } from "./evidence.js";
import { timesAsCsv, timesAsEdl, timesAsSrt } from "./exports.js";
import { Player } from "./player.js";
import { Timeline } from "./timeline.js";

/** Every page that shows an answer shows it by this. */
export class View {
  #source;
  #video = null;

  constructor(source, onTime = () => {}) {
    this.#source = source;
    this.player = new Player(source, (seconds) => {
      this.timeline?.setTime(seconds);
      onTime(seconds);
    });
    this.timeline = new Timeline(source, (seconds) => this.player.seek(seconds));
    this.columns = h("div", { class: "columns" });
    this.evidence = h("section", { class: "evidence", "aria-label": "evidence" });
    this.exports = h("p", { class: "exports small" });
  }

  /** Open a video without an answer. */
  open(video) {
    this.#video = video;
    this.player.open(video);
    this.show([]);
  }

  /** Show these answers: [{label, answer}]; cards and files are of the first that searched. */
  show(entries) {
    const video = this.#video, seek = (seconds) => this.player.seek(seconds);
    entries = entries.map((entry, row) => ({ ...entry, row }));
    this.timeline.show(video, entries);
    replace(this.columns, entries.map((entry) => answerColumn(this.#source, video, entry, seek)));
    const main = entries.find(({ answer }) => answer.evidence.length) ?? entries[0];
    const onPlay = (clip) => {
      this.player.play(clip.start_seconds, clip.end_seconds);
      this.player.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    };
    replace(this.evidence, main ? evidenceCards(this.#source, video, main.answer, onPlay) : []);
    replace(this.exports, main ? this.#exportButtons(main.answer, entries) : []);
  }

  #exportButtons(answer, entries) {
    const video = this.#video, stem = video.name.replace(/\.[^.]*$/, "");
    const file = (text, suffix, content, type) =>
      h("button", { type: "button", onclick: () => download(`${stem}-evidence.${suffix}`, content(), type) }, text);
    const times = answer.frames.map((frame) => frame.time_seconds);
    const archive = this.#source.archiveUrl(video, times), page = this.#source.page;
    return [
      "Save: ",
      file("times (CSV)", "csv", () => timesAsCsv(answer), "text/csv"),
      answer.evidence.length ? [
        file("subtitles (SRT)", "srt", () => timesAsSrt(answer)),
        file("cuts (EDL)", "edl", () => timesAsEdl(answer, video)),
      ] : null,
      archive !== null && times.length ? h("a", { href: archive, download: `${stem}-frames.zip` }, "frames (PNG)") : null,
      page === undefined ? null : h("button", { type: "button", onclick: async (event) => {
        event.target.disabled = true;
        try {
          download(`${stem}.html`, await this.#source.page(video, entries), "text/html");
        } finally {
          event.target.disabled = false;
        }
      } }, "this page (HTML)"),
    ].flat().filter((part) => part !== null);
  }
}

/** React to keys that mean something on the whole page, unless a field has the focus. */
export function listenToKeys(view, question) {
  document.addEventListener("keydown", (event) => {
    const isField = event.target.closest?.("input, textarea, select, dialog");
    if (isField || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "/" && question) {
      question.focus();
      event.preventDefault();
    } else if (!(event.key === " " && event.target.closest?.("button, a, summary, video")) && view.player.onKey(event.key)) {
      event.preventDefault();
    }
  });
}
