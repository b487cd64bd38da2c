// Which questions of a run are listed, and in which order.

/** What became of the annotated evidence, in the words that a filter has. */
export const EVIDENCE = { shown: "shown to the model", found: "found, not shown", missed: "neither found nor shown" };

export const ORDERS = { asked: "as asked", sure: "most confident first", unsure: "least confident first" };

/** Return the questions that match these filters, all of them values of a form; an empty one does not matter. */
export function filtered(questions, filters) {
  const first = filters.a === "" ? null : Number(filters.a), second = filters.b === "" ? null : Number(filters.b);
  const text = filters.text.toLowerCase();
  const listed = questions.filter((question) => {
    if (filters.tag && !question.tags.includes(filters.tag)) return false;
    if (filters.video && question.video !== filters.video) return false;
    if (text && !question.search.includes(text)) return false;
    if (filters.note && !question.note) return false;
    const isWanted = (answer, outcome) => matches(answer, outcome, filters);
    const answers = first === null ? question.answers : [question.answers[first]];
    if (!answers.some((answer) => isWanted(answer, filters.outcome))) return false;
    return second === null || !filters.other || isOutcome(question.answers[second], filters.other);
  });
  if (filters.sort === "asked") return listed;
  const sign = filters.sort === "sure" ? -1 : 1;
  const confidence = (question) => (first === null ? question.answers.find(Boolean) : question.answers[first])?.confidence ?? null;
  return listed.sort((one, other) => {
    const [a, b] = [confidence(one), confidence(other)];
    return a === null || b === null ? (a === null) - (b === null) : sign * (a - b);
  });
}

function matches(answer, outcome, filters) {
  if (!answer) return !outcome && !filters.evidence && !filters.warnings;
  if (outcome && !isOutcome(answer, outcome)) return false;
  if (filters.evidence && answer.evidence !== filters.evidence) return false;
  return !filters.warnings || answer.num_warnings > 0;
}

function isOutcome(answer, outcome) {
  if (!answer) return false;
  if (outcome === "failed") return answer.failed;
  return answer.correct === (outcome === "right");
}
