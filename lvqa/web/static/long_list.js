// A list of any length: only what is on screen exists as elements.

import { h, replace } from "./dom.js";

const OVERSCAN = 6;

export class LongList {
  #items = [];
  #drawn = "";

  /** Make a list of rows of one height; `row` makes the element of an item. */
  constructor(rowHeight, row) {
    [this.rowHeight, this.row] = [rowHeight, row];
    this.content = h("div", { class: "long-list-content", role: "list" });
    this.element = h("div", { class: "long-list", tabindex: "0", role: "region", "aria-label": "questions", onscroll: () => this.#draw() }, this.content);
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  show(items) {
    this.#items = items;
    this.#drawn = "";
    this.content.style.setProperty("height", `${items.length * this.rowHeight}px`);
    this.#draw();
  }

  #draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.rowHeight) - OVERSCAN);
    const last = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / this.rowHeight) + OVERSCAN);
    if (this.#drawn === `${first}-${last}`) return;
    this.#drawn = `${first}-${last}`;
    replace(this.content, this.#items.slice(first, last).map((item, index) =>
      h("div", { class: "long-list-row", role: "listitem", "--top": `${(first + index) * this.rowHeight}px` }, this.row(item))));
  }
}
