// An answer as the records have it: its text, its options, its frames, what it cost, and what is wrong with it.

import { h } from "./dom.js";
import { framesOf } from "./frames.js";
import { counted, letter, percent } from "./text.js";

/** Make the column of an answer. */
export function answerColumn(source, video, { label, answer, row }, onSeek) {
  const total = Object.values(answer.seconds).reduce((sum, seconds) => sum + seconds, 0);
  return h("article", { class: "answer-column", "aria-label": `answer of ${label}` },
    h("h3", { class: `key key-tick row-${row}` }, label),
    verdict(answer),
    (answer.warnings ?? []).map((warning) => h("p", { class: "warning" }, warning)),
    facts(answer),
    optionsTable(answer),
    h("h4", {}, answer.frames.length === answer.frames_budget
      ? counted(answer.frames.length, "frame") : `${counted(answer.frames.length, "frame")} of a budget of ${answer.frames_budget}`),
    framesOf(source, video, answer, onSeek),
    h("details", { class: "small" }, h("summary", {}, `cost: ${total.toFixed(1)} s, ${counted(answer.counts.tokens_prefilled, "token")}`), cost(answer)));
}

/** The answer, and whether it is right where that is known. */
function verdict(answer) {
  if (answer.error) return h("p", { class: "answer wrong" }, answerLine(answer));
  const known = answer.correct === undefined || answer.correct === null ? null : answer.correct ? "right" : "wrong";
  return h("p", { class: `answer ${known ?? ""}` }, answerLine(answer), known === null ? null : h("span", { class: "badge" }, known),
    known === "wrong" && answer.target ? h("span", { class: "small" }, ` right: ${answer.target}`) : null);
}

function facts(answer) {
  const scores = (answer.option_scores ?? []).filter((score) => score !== null);
  const lines = [
    scores.length ? `confidence ${percent(Math.max(...scores))}` : null,
    answer.time_read ? `time read from the question: ${answer.time_read}` : null,
    kindText(answer.question_kind),
    answer.looked_again === null || answer.looked_again === undefined ? null : answer.looked_again ? "looked again" : "sure at the first look",
  ].filter((line) => line !== null);
  return lines.length ? h("p", { class: "small" }, lines.join("; ")) : null;
}

function kindText(kind) {
  if (!kind) return null;
  const [name, share] = Object.entries(kind).sort((a, b) => b[1] - a[1])[0];
  return `the question is about: ${name} (${percent(share)})`;
}

function optionsTable(answer) {
  if (!answer.options?.length) return null;
  const scored = answer.option_scores?.length === answer.options.length;
  return h("table", { class: "options" }, h("tbody", {}, answer.options.map((text, index) => {
    const score = scored ? answer.option_scores[index] : null, name = letter(index);
    const classes = [name === answer.option ? "chosen" : "", name === answer.target ? "target" : ""].join(" ").trim();
    return h("tr", { class: classes || null }, h("th", { scope: "row" }, name), h("td", {}, text),
      h("td", { class: "number" }, score === null ? "" : score.toFixed(3)),
      h("td", { class: "meter" }, score === null ? null : h("div", { "--share": `${100 * score}%` })));
  })));
}

function cost(answer) {
  const { counts, index } = answer;
  const stages = Object.entries(answer.seconds).map(([stage, seconds]) => `${stage} ${seconds.toFixed(2)} s`).join(", ");
  const tokens = answer.answer_tokens ? `; the answer's own prompt has ${counted(answer.answer_tokens, "token")}` : "";
  const clips = index?.clips === undefined ? "" : ` Index of ${counted(index.clips, "clip")}, ${index.reused ? "reused" : "built now"}.`;
  return h("p", {}, `${counted(counts.frames_decoded, "frame")} decoded, ${counted(counts.pairs_encoded, "pair")} encoded, `
    + `${counted(counts.tokens_prefilled, "token")} prefilled${tokens}. ${stages}.${clips}`);
}

/** The answer in one line. */
export function answerLine(answer) {
  if (answer.error) return `no answer: ${answer.error}`;
  return answer.option === null ? answer.answer || "(an empty answer)" : `${answer.option}. ${answer.answer}`;
}

