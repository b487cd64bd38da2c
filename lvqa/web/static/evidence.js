// Clips that were found, as cards: those that the model saw, and those that it did not.

import { h } from "./dom.js";
import { clock, scoresText, spanText } from "./text.js";

const MAX_PICTURES = 4, MAX_UNSEEN = 4;

/** Make the cards of an answer's evidence, best first. */
export function evidenceCards(source, video, answer, onPlay) {
  const clips = answer.evidence.map((clip, index) => ({ ...clip, rank: index + 1 }));
  const seen = clips.filter((clip) => clip.frames.length), unseen = clips.filter((clip) => !clip.frames.length);
  const cards = (list) => h("div", { class: "cards" }, list.map((clip) => card(source, video, clip, answer, onPlay)));
  if (!clips.length) return [];
  return [
    h("h2", {}, "Evidence"),
    seen.length ? cards(seen) : h("p", { class: "small" }, "No frame is from a clip that was found."),
    unseen.length ? h("details", { class: "unseen", open: unseen.length <= MAX_UNSEEN },
      h("summary", {}, `Found, and not shown to the model: ${unseen.length}`), cards(unseen)) : null,
  ];
}

function card(source, video, clip, answer, onPlay) {
  const middle = Math.floor((clip.start_seconds + clip.end_seconds) / 2);
  const times = clip.frames.length ? spread(clip.frames, MAX_PICTURES) : [middle];
  const urls = times.map((seconds) => source.pictureUrl(video, seconds)).filter((url) => url !== null);
  const overlaps = answer.evidence_seconds && clip.start_seconds < answer.evidence_seconds[1] && answer.evidence_seconds[0] < clip.end_seconds;
  const download = source.clipUrl(video, clip.start_seconds, clip.end_seconds, 720);
  const frames = clip.frames.length ? `frames at ${spread(clip.frames, 8).map(clock).join(", ")}${clip.frames.length > 8 ? " ..." : ""}` : null;
  return h("article", { class: overlaps ? "card inside" : "card", "data-start": clip.start_seconds },
    h("button", { type: "button", class: "card-play", "aria-label": `play ${spanText(clip)}`, onclick: () => onPlay(clip) },
      urls.length ? h("span", { class: "card-pictures" }, urls.map((src) => h("img", { src, alt: "", loading: "lazy", decoding: "async" }))) : null,
      h("strong", {}, `${clip.rank}. ${spanText(clip)}`)),
    h("p", { class: "small" }, scoresText(clip), overlaps ? ", at the annotated time" : null),
    clip.line ? h("p", { class: "said" }, h("q", {}, clip.line.text), ` ${clock(clip.line.start_seconds)}`) : null,
    frames === null ? null : h("p", { class: "small" }, frames),
    download === null ? null : h("a", { class: "small", href: download, download: `clip-${clip.start_seconds}-${clip.end_seconds}.mp4` }, "clip as MP4"));
}

/** Up to so many of these values, evenly spread. */
function spread(values, most) {
  if (values.length <= most) return values;
  return Array.from({ length: most }, (_, index) => values[Math.floor((index + 0.5) * values.length / most)]);
}

