// Elements of the page, made without HTML in strings: what a text holds is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: h("p", {class: "note", onclick: f}, "text", otherElement). A value of null or false is left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an element of a drawing, as `h` does. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put these children in place of those that an element has. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

/** Make a list of choices: values, or [value, label] pairs. */
export function choices(attributes, values, selected) {
  const options = values.map((value) => (Array.isArray(value) ? value : [value, value])).map(([value, label]) =>
    h("option", { value, selected: String(value) === String(selected) }, String(label)));
  return h("select", attributes, options);
}

/** Save a text as a file of the reader's. */
export function download(name, content, type = "text/plain") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
