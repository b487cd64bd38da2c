// Numbers and times as people read them.

/** A time as a player shows it: 725 is "12:05", 3725 is "1:02:05". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds)), two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function spanText(clip) {
  return `${clock(clip.start_seconds)}-${clock(clip.end_seconds)}`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function scoresText(clip) {
  const embedding = clip.embed_score === null ? [] : [`embedding ${clip.embed_score.toFixed(2)}`];
  const rerank = clip.rerank_score === null ? [] : [`rerank ${clip.rerank_score.toFixed(2)}`];
  return [...rerank, ...embedding].join(", ");
}

export function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

/** The letter of an option: 0 is "A". */
export function letter(index) {
  return String.fromCharCode(65 + index);
}

export function isInside(seconds, span) {
  return span !== null && span !== undefined && span[0] <= seconds && seconds < span[1];
}
