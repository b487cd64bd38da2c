// The scores of an answer over the time of the video, with the frames that were chosen.

import { draw, h, replace } from "./dom.js";
import { clock, counted, isInside, scoresText } from "./text.js";

const PLOT_HEIGHT = 110, TICKS_HEIGHT = 16, AXIS_HEIGHT = 22, TOP = 10;
const MAX_WIDTH = 24000; // pixels; a drawing that is wider would be slow
const TICKS = [1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const PIXELS_A_TICK = 76;
const PICTURE_DELAY_MS = 120;

/** A drawing that is as wide as its box, or wider: then the box scrolls. */
export class Timeline {
  #source;
  #video = null;
  #answers = [];
  #zoom = 1;
  #seconds = 0;
  #cursor = draw("line", { class: "cursor", y1: 0 });
  #hoverTimer = 0;

  constructor(source, onSeek) {
    this.#source = source;
    this.box = h("div", {
      class: "timeline-box", tabindex: "0", role: "slider", "aria-label": "time in the video", "aria-valuemin": 0,
      onclick: (event) => onSeek(this.#timeAt(event)),
      onpointermove: (event) => this.#hover(event),
      onpointerleave: () => { clearTimeout(this.#hoverTimer); this.tip.hidden = true; },
    });
    this.tip = h("div", { class: "tip", hidden: true });
    const zoomBy = (label, text, factor) =>
      h("button", { type: "button", "aria-label": label, onclick: () => this.zoom(factor) }, text);
    this.legend = h("div", { class: "legend" });
    this.element = h("section", { class: "timeline", "aria-label": "timeline" },
      h("div", { class: "timeline-head" }, this.legend,
        h("div", { class: "controls" }, zoomBy("zoom out", "-", 0.5), zoomBy("zoom in", "+", 2), zoomBy("show all", "all", 0))),
      this.box, this.tip);
    new ResizeObserver(() => this.#redraw()).observe(this.box);
  }

  /** Show these answers to one question: [{label, answer}]; the scores are those of the first that has any. */
  show(video, answers) {
    if (this.#video?.id !== video.id) this.#zoom = 1;
    [this.#video, this.#answers] = [video, answers];
    this.box.setAttribute("aria-valuemax", Math.floor(video.duration_seconds));
    this.#redraw();
  }

  setTime(seconds) {
    this.#seconds = seconds;
    this.box.setAttribute("aria-valuenow", Math.floor(seconds));
    this.box.setAttribute("aria-valuetext", clock(seconds));
    if (this.#video === null) return;
    const x = this.#x(seconds);
    this.#cursor.setAttribute("x1", x);
    this.#cursor.setAttribute("x2", x);
  }

  /** Draw it so many times as wide around the player's time; 0 shows the whole video. */
  zoom(factor) {
    const limit = Math.max(1, MAX_WIDTH / this.box.clientWidth);
    this.#zoom = factor === 0 ? 1 : Math.min(limit, Math.max(1, this.#zoom * factor));
    this.#redraw();
    this.box.scrollLeft = this.#x(this.#seconds) - this.box.clientWidth / 2;
  }

  get #width() {
    return Math.max(1, Math.floor(this.box.clientWidth * this.#zoom));
  }

  #x(seconds) {
    return this.#width * seconds / this.#video.duration_seconds;
  }

  #timeAt(event) {
    const left = this.box.getBoundingClientRect().left;
    const share = (event.clientX - left + this.box.scrollLeft) / this.#width;
    return Math.min(Math.max(0, share), 1) * this.#video.duration_seconds;
  }

  #redraw() {
    if (this.#video === null || this.box.clientWidth === 0) return;
    const ranked = this.#answers.find(({ answer }) => answer.clips.length)?.answer;
    const plot = ranked ? PLOT_HEIGHT : 0, rows = TICKS_HEIGHT * this.#answers.length;
    const height = TOP + plot + rows + AXIS_HEIGHT;
    const drawing = draw("svg", { width: this.#width, height, "aria-hidden": "true" });
    drawing.append(...this.#spans(height), ...(ranked ? [...this.#bars(ranked), this.#line(ranked)] : []));
    this.#answers.forEach(({ answer }, row) => drawing.append(...this.#ticksOf(answer, row, TOP + plot + TICKS_HEIGHT * row)));
    drawing.append(...this.#axis(TOP + plot + rows), this.#cursor);
    this.#cursor.setAttribute("y2", height);
    replace(this.box, drawing);
    this.#drawLegend(ranked);
    this.setTime(this.#seconds);
  }

  #rectangle(name, start, end, y, height) {
    const x = this.#x(start);
    return draw("rect", { class: name, x, y, width: Math.max(2, this.#x(end) - x), height });
  }

  /** The annotated time, and the times that were read from the question. */
  #spans(height) {
    const answer = this.#answers[0]?.answer;
    const truth = answer?.evidence_seconds ? [this.#rectangle("truth", ...answer.evidence_seconds, 0, height)] : [];
    const read = this.#answers.flatMap(({ answer }) => answer.time_spans ?? []);
    return [...truth, ...read.map((span) => this.#rectangle("time-read", ...span, 0, height))];
  }

  #bars(answer) {
    const levels = [0, 0.5, 1].map((share) => {
      const y = TOP + PLOT_HEIGHT * (1 - share);
      return draw("line", { class: "level", x1: 0, x2: this.#width, y1: y, y2: y });
    });
    const reranked = answer.clips.filter((clip) => clip.rerank_score !== null);
    return [...levels, ...reranked.map((clip) => {
      const height = Math.max(1, PLOT_HEIGHT * Math.min(1, Math.max(0, clip.rerank_score)));
      const isSeen = answer.frames.some((frame) => isInside(frame.time_seconds, [clip.start_seconds, clip.end_seconds]));
      return this.#rectangle(isSeen ? "bar" : "bar found", clip.start_seconds, clip.end_seconds, TOP + PLOT_HEIGHT - height, height);
    })];
  }

  /** The embedding's scores, on a scale of their own from the least to the greatest. */
  #line(answer) {
    const clips = answer.clips.filter((clip) => clip.embed_score !== null);
    const [least, greatest] = rangeOf(clips);
    let path = "", end = null;
    for (const clip of clips) {
      const y = TOP + PLOT_HEIGHT * (0.95 - 0.9 * (clip.embed_score - least) / (greatest - least || 1));
      const start = end !== null && clip.start_seconds - end < 0.01 ? "L" : "M";
      path += `${start}${this.#x(clip.start_seconds).toFixed(1)} ${y.toFixed(1)}L${this.#x(clip.end_seconds).toFixed(1)} ${y.toFixed(1)}`;
      end = clip.end_seconds;
    }
    return draw("path", { class: "embedding", d: path });
  }

  #ticksOf(answer, row, y) {
    return answer.frames.map(({ time_seconds }) => {
      const x = this.#x(time_seconds);
      return draw("line", { class: `frame-tick row-${row}`, x1: x, x2: x, y1: y + 3, y2: y + TICKS_HEIGHT - 2 });
    });
  }

  #axis(y) {
    const { duration_seconds } = this.#video, most = Math.max(1, this.#width / PIXELS_A_TICK);
    const step = TICKS.find((seconds) => duration_seconds <= seconds * most) ?? duration_seconds;
    const marks = [draw("line", { class: "axis", x1: 0, x2: this.#width, y1: y, y2: y })];
    for (let seconds = 0; seconds <= duration_seconds; seconds += step) {
      const x = this.#x(seconds), isLast = this.#width - x < 40, isFirst = x < 20;
      marks.push(draw("line", { class: "axis", x1: x, x2: x, y1: y, y2: y + 4 }));
      marks.push(draw("text", { x, y: y + 17, "text-anchor": isFirst ? "start" : isLast ? "end" : "middle" }, clock(seconds)));
    }
    return marks;
  }

  #drawLegend(ranked) {
    const entry = (name, text) => h("span", { class: `key ${name}` }, text);
    const entries = [];
    if (ranked?.clips.some((clip) => clip.rerank_score !== null)) entries.push(entry("key-bar", "rerank score, 0 to 1"));
    const embedded = ranked?.clips.filter((clip) => clip.embed_score !== null) ?? [];
    if (embedded.length) {
      entries.push(entry("key-line", `embedding score of ${counted(embedded.length, "clip")}, ${rangeOf(embedded).map((score) => score.toFixed(2)).join(" to ")}`));
    }
    this.#answers.forEach(({ label }, row) => entries.push(entry(`key-tick row-${row}`, label)));
    const [first] = this.#answers;
    if (first?.answer.evidence_seconds) entries.push(entry("key-truth", "the evidence, as annotated"));
    const read = this.#answers.find(({ answer }) => answer.time_spans?.length);
    if (read) entries.push(entry("key-read", `time read from the question: ${read.answer.time_read}`));
    replace(this.legend, entries);
  }

  #hover(event) {
    if (this.#video === null) return;
    const seconds = this.#timeAt(event), box = this.element.getBoundingClientRect();
    const clips = this.#answers.flatMap(({ answer }) => answer.clips);
    const clip = clips.find((one) => isInside(seconds, [one.start_seconds, one.end_seconds]));
    const picture = h("img", { alt: "", hidden: true });
    replace(this.tip, picture, h("div", {}, clock(seconds)), clip ? h("div", { class: "small" }, scoresText(clip)) : null);
    this.tip.hidden = false;
    const half = this.tip.offsetWidth / 2, x = Math.min(Math.max(half, event.clientX - box.left), box.width - half);
    this.tip.style.setProperty("--x", `${x}px`);
    clearTimeout(this.#hoverTimer);
    this.#hoverTimer = setTimeout(() => {
      const url = this.#source.pictureUrl(this.#video, Math.floor(seconds), 90);
      if (url !== null) [picture.src, picture.hidden] = [url, false];
    }, PICTURE_DELAY_MS);
  }
}

function rangeOf(clips) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const { embed_score } of clips) [least, greatest] = [Math.min(least, embed_score), Math.max(greatest, embed_score)];
  return [least, greatest];
}
