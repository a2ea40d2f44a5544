/** A treemap: what a directory holds as rectangles by size. A click, or Enter, goes into a directory; the path above leads back. */
'use strict';

/** More than these are one rectangle of their own. */
const MAX_RECTANGLES = 48;

/**
 * Squarified treemap (Bruls, Huizing, van Wijk): rectangles of the given areas, biggest first, as close to squares as can be.
 * @param {readonly number[]} sizes biggest first
 * @param {number} width
 * @param {number} height
 * @returns {{ x: number, y: number, width: number, height: number }[]}
 */
function squarify(sizes, width, height) {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const areas = sizes.map((size) => (size / total) * width * height);
  const made = [];
  const free = { x: 0, y: 0, width, height };
  for (let from = 0; from < areas.length;) {
    const side = Math.min(free.width, free.height);
    let sum = 0;
    let worst = Infinity;
    let to = from;
    for (; to < areas.length; to++) {
      const added = sum + (areas[to] ?? 0);
      const thick = added / side;
      const ratios = [areas[from] ?? 0, areas[to] ?? 0].map((area) =>
        Math.max((thick * thick) / area, area / (thick * thick)),
      );
      const now = Math.max(...ratios);
      if (now > worst) break;
      worst = now;
      sum = added;
    }
    const thick = side === 0 ? 0 : sum / side;
    let along = 0;
    for (; from < to; from++) {
      const length = thick === 0 ? 0 : (areas[from] ?? 0) / thick;
      made.push(
        free.width < free.height
          ? { x: free.x + along, y: free.y, width: length, height: thick }
          : { x: free.x, y: free.y + along, width: thick, height: length },
      );
      along += length;
    }
    if (free.width < free.height) {
      free.y += thick;
      free.height -= thick;
    } else {
      free.x += thick;
      free.width -= thick;
    }
  }
  return made;
}

class Treemap {
  /** @type {Shown | undefined} */
  #shown;
  #node = 0;

  constructor() {
    this.way = element('nav', { 'aria-label': 'Directory of the treemap', class: 'way' });
    this.map = element('div', { class: 'map', role: 'group', 'aria-label': 'Bytes by directory and file' });
    this.root = element('div', {}, [this.way, this.map]);
    new ResizeObserver(() => this.#draw()).observe(this.map);
  }

  /** @param {Shown} shown */
  show(shown) {
    this.#shown = shown;
    this.#goTo(0);
  }

  /** @param {number} node */
  #goTo(node) {
    const { paths } = /** @type {Shown} */ (this.#shown);
    this.#node = node;
    const steps = [];
    for (let at = node; ; at = paths.parent(at)) {
      const step = element('button', { type: 'button' }, at === 0 ? '/' : paths.name(at));
      if (at === node) step.setAttribute('aria-current', 'true');
      step.addEventListener('click', () => this.#enter(at));
      steps.unshift(step);
      if (at === 0) break;
    }
    this.way.replaceChildren(...steps);
    this.#draw();
  }

  /**
   * By a person: what had the focus is gone then, and the path takes it.
   * @param {number} node
   */
  #enter(node) {
    this.#goTo(node);
    const last = this.way.lastElementChild;
    if (last instanceof HTMLElement) last.focus();
  }

  #draw() {
    const shown = this.#shown;
    const { clientWidth: width, clientHeight: height } = this.map;
    if (shown === undefined || width === 0 || height === 0) return;
    const { paths } = shown;
    const sizeOf = (/** @type {number} */ node) => shown.size[node] ?? 0;
    const all = paths
      .below(this.#node)
      .filter((node) => sizeOf(node) > 0)
      .sort((a, b) => sizeOf(b) - sizeOf(a));
    const own = all.slice(0, all.length > MAX_RECTANGLES ? MAX_RECTANGLES - 1 : MAX_RECTANGLES);
    const rest = all.slice(own.length);
    const restSize = rest.reduce((sum, node) => sum + sizeOf(node), 0);
    if (own.length === 0) {
      this.map.replaceChildren(element('p', { class: 'nothing' }, 'Nothing here takes bytes.'));
      return;
    }
    const sizes = [...own.map(sizeOf), ...(rest.length === 0 ? [] : [restSize])];
    // The rest may be bigger than some before it; the layout needs an order, the page does not.
    const order = sizes.map((_, index) => index).sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0));
    const places = squarify(
      order.map((index) => sizes[index] ?? 0),
      width,
      height,
    );
    const made = order.map((index, i) => {
      const node = own[index];
      const text = node === undefined ? `${counted(rest.length, 'other')}` : paths.name(node);
      const size = formatBytes(sizes[index] ?? 0);
      const folder = node !== undefined && paths.below(node).some((child) => sizeOf(child) > 0);
      const label = `${folder ? `${text}/` : text} ${size}`;
      const content = [element('span', { class: 'label' }, folder ? `${text}/` : text), element('span', {}, size)];
      const box = folder
        ? element('button', { type: 'button', class: 'box folder', title: label }, content)
        : element('div', { class: 'box', role: 'img', 'aria-label': label, title: label }, content);
      if (folder) box.addEventListener('click', () => this.#enter(node));
      const place = places[i] ?? { x: 0, y: 0, width: 0, height: 0 };
      if (place.width < 48 || place.height < 22) box.classList.add('tiny');
      box.style.left = `${place.x}px`;
      box.style.top = `${place.y}px`;
      box.style.width = `${place.width}px`;
      box.style.height = `${place.height}px`;
      return box;
    });
    this.map.replaceChildren(...made);
  }
}
