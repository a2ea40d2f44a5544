/**
 * A tree of files that one can search, fold and walk by keys. Only the rows in sight are elements of the page, whatever the
 * tree holds; assistive programs learn the rest from `aria-level`, `aria-setsize` and `aria-posinset`.
 */
'use strict';

const ROW_HEIGHT = 28;
/** Rows kept above and below those in sight. */
const SPARE_ROWS = 8;

/** @typedef {{ node: number, depth: number, position: number, siblings: number, parent: number }} Row */

class TreeView {
  /** @type {Shown | undefined} */
  #shown;
  /** @type {Row[]} */
  #rows = [];
  /** @type {Set<number>} */
  #open = new Set();
  #active = 0;
  #order = 'size';
  #search = '';
  /** Status to show; 0: all. */
  #status = 0;

  /**
   * @param {string} name unique in the page
   * @param {string} label
   */
  constructor(name, label) {
    this.name = name;
    const search = element('input', { type: 'search', autocomplete: 'off', spellcheck: 'false' });
    search.addEventListener('input', () => {
      this.#search = search.value.trim();
      this.#rebuild();
    });
    const statuses = [
      ['0', 'everything'],
      ['1', 'added'],
      ['2', 'changed'],
      ['3', 'removed'],
    ];
    this.filter = selection('Show', /** @type {[string, string][]} */ (statuses), () => {
      this.#status = Number(this.filter.select.value);
      this.#rebuild();
    });
    const order = selection(
      'Order',
      [
        ['size', 'biggest first'],
        ['name', 'by name'],
      ],
      () => {
        this.#order = order.select.value;
        this.#rebuild();
      },
    );
    const unfold = element('button', { type: 'button' }, 'Unfold all');
    unfold.addEventListener('click', () => this.#foldAll(false));
    const fold = element('button', { type: 'button' }, 'Fold all');
    fold.addEventListener('click', () => this.#foldAll(true));
    this.summary = element('p', { role: 'status', class: 'summary' });
    this.nothing = element('p', { class: 'nothing' }, 'No file matches.');
    this.space = element('div', { role: 'none', class: 'space' });
    this.tree = element('div', { role: 'tree', 'aria-label': label, tabindex: '0', class: 'tree' }, [this.space]);
    this.tree.addEventListener('scroll', () => this.#draw());
    this.tree.addEventListener('keydown', (event) => this.#key(event));
    this.tree.addEventListener('click', (event) => this.#click(event));
    new ResizeObserver(() => this.#draw()).observe(this.tree);
    this.root = element('div', { class: 'files' }, [
      element('div', { class: 'tools' }, [
        element('label', { class: 'field search' }, ['Search paths ', search]),
        this.filter.field,
        order.field,
        unfold,
        fold,
      ]),
      this.summary,
      this.tree,
      this.nothing,
    ]);
  }

  /**
   * @param {Shown} shown
   * @param {boolean} statuses whether files have one
   */
  show(shown, statuses) {
    this.#shown = shown;
    this.#open = new Set([0]);
    // The only directory of a level is open, so that something is to be seen.
    for (let at = 0; ;) {
      const inside = shown.paths.below(at).filter((node) => shown.files[node] !== 0);
      const [only] = inside;
      if (inside.length !== 1 || only === undefined) break;
      this.#open.add(only);
      at = only;
    }
    this.#active = 0;
    this.tree.scrollTop = 0;
    this.filter.field.hidden = !statuses;
    if (!statuses) {
      this.#status = 0;
      this.filter.select.value = '0';
    }
    this.#rebuild();
  }

  /** @param {boolean} folded */
  #foldAll(folded) {
    const shown = this.#shown;
    if (shown === undefined) return;
    this.#open = new Set([0]);
    if (!folded)
      for (let node = 0; node < shown.paths.count; node++) if (shown.paths.below(node).length > 0) this.#open.add(node);
    this.#active = 0;
    this.#rebuild();
  }

  /** Which rows there are, after any change of what is shown. */
  #rebuild() {
    const shown = this.#shown;
    if (shown === undefined) return;
    const { paths } = shown;
    const searching = this.#search !== '';
    const filtering = searching || this.#status !== 0;
    /** Files below that are to be seen; 0: the node is not. */
    let files = shown.files;
    let found = shown.files[0] ?? 0;
    let bytes = shown.size[0] ?? 0;
    if (filtering) {
      const match = searching ? paths.matching(this.#search) : new Uint8Array(paths.count).fill(1);
      files = new Uint32Array(paths.count);
      bytes = 0;
      for (let node = paths.count - 1; node >= 0; node--) {
        if (
          shown.file[node] === 1 &&
          match[node] === 1 &&
          (this.#status === 0 || shown.status[node] === this.#status)
        ) {
          files[node] = (files[node] ?? 0) + 1;
          bytes += this.#ownSize(shown, node);
        }
        if (node > 0) files[paths.parent(node)] = (files[paths.parent(node)] ?? 0) + (files[node] ?? 0);
      }
      found = files[0] ?? 0;
    }
    const rows = /** @type {Row[]} */ ([]);
    /** @type {{ list: number[], next: number, depth: number, parent: number }[]} */
    const stack = [{ list: this.#ordered(shown, 0, files), next: 0, depth: 1, parent: -1 }];
    for (let level = stack.at(-1); level !== undefined; level = stack.at(-1)) {
      const node = level.list[level.next++];
      if (node === undefined) {
        stack.pop();
        continue;
      }
      rows.push({ node, depth: level.depth, position: level.next, siblings: level.list.length, parent: level.parent });
      // A search unfolds all that it finds, as long as that can still be looked through.
      const open = this.#open.has(node) || (searching && found <= 2000);
      if (open && paths.below(node).length > 0)
        stack.push({
          list: this.#ordered(shown, node, files),
          next: 0,
          depth: level.depth + 1,
          parent: rows.length - 1,
        });
    }
    this.#rows = rows;
    this.#active = Math.min(this.#active, Math.max(rows.length - 1, 0));
    this.summary.textContent = `${counted(found, 'file')}, ${formatBytes(bytes)}`;
    this.tree.hidden = rows.length === 0;
    this.nothing.hidden = rows.length > 0;
    this.space.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.#draw();
  }

  /**
   * A file's own bytes, where others may lie below its path: what was a file before, and is a directory.
   * @param {Shown} shown
   * @param {number} node
   */
  #ownSize(shown, node) {
    return shown.paths.below(node).reduce((rest, child) => rest - (shown.size[child] ?? 0), shown.size[node] ?? 0);
  }

  /**
   * @param {Shown} shown
   * @param {number} node
   * @param {Uint32Array} files
   */
  #ordered(shown, node, files) {
    const { paths } = shown;
    const list = paths.below(node).filter((child) => files[child] !== 0);
    /** @param {number} a @param {number} b */
    const byName = (a, b) => ((paths.names[a] ?? '') < (paths.names[b] ?? '') ? -1 : 1);
    return list.sort(
      this.#order === 'name' ? byName : (a, b) => (shown.size[b] ?? 0) - (shown.size[a] ?? 0) || byName(a, b),
    );
  }

  #draw() {
    const shown = this.#shown;
    if (shown === undefined) return;
    const height = this.tree.clientHeight || 600;
    // The browser may still tell the place of before, when there were more rows.
    const top = Math.min(this.tree.scrollTop, Math.max(0, this.#rows.length * ROW_HEIGHT - height));
    const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.#rows.length, Math.ceil((top + height) / ROW_HEIGHT) + SPARE_ROWS);
    const rows = [];
    for (let index = first; index < last; index++) {
      const row = this.#rows[index];
      if (row !== undefined) rows.push(this.#row(shown, row, index));
    }
    this.space.replaceChildren(...rows);
    const active = `${this.name}-${this.#active}`;
    if (this.#active >= first && this.#active < last) this.tree.setAttribute('aria-activedescendant', active);
    else this.tree.removeAttribute('aria-activedescendant');
  }

  /**
   * @param {Shown} shown
   * @param {Row} row
   * @param {number} index
   */
  #row(shown, { node, depth, position, siblings }, index) {
    const { paths } = shown;
    const next = this.#rows[index + 1];
    const folder = paths.below(node).some((child) => shown.files[child] !== 0);
    const open = next !== undefined && next.depth > depth;
    const status = STATUS_NAMES[shown.status[node] ?? 0] ?? '';
    const size = formatBytes(shown.size[node] ?? 0);
    const details = folder ? counted(shown.files[node] ?? 0, 'file') : `layer ${shown.layer[node] ?? 0}`;
    const name = paths.name(node);
    const made = element(
      'div',
      {
        role: 'treeitem',
        id: `${this.name}-${index}`,
        class: `row ${status}${index === this.#active ? ' active' : ''}`,
        'aria-level': String(depth),
        'aria-setsize': String(siblings),
        'aria-posinset': String(position),
        'aria-selected': String(index === this.#active),
        'data-row': String(index),
        title: paths.path(node),
        ...(folder ? { 'aria-expanded': String(open) } : {}),
      },
      [
        element('span', { class: 'fold', 'aria-hidden': 'true' }, folder ? (open ? '▾' : '▸') : ''),
        element('span', { class: 'label' }, folder && shown.file[node] === 0 ? `${name}/` : name),
        element('span', { class: 'status' }, status),
        element('span', { class: 'details' }, details),
        element('span', { class: 'size' }, size),
      ],
    );
    made.style.top = `${index * ROW_HEIGHT}px`;
    made.style.setProperty('--depth', String(Math.min(depth - 1, 24)));
    return made;
  }

  /** @param {number} index */
  #goTo(index) {
    this.#active = Math.max(0, Math.min(index, this.#rows.length - 1));
    const top = this.#active * ROW_HEIGHT;
    if (top < this.tree.scrollTop) this.tree.scrollTop = top;
    const bottom = top + ROW_HEIGHT - this.tree.clientHeight;
    if (bottom > this.tree.scrollTop) this.tree.scrollTop = bottom;
    this.#draw();
  }

  /** @param {Row} row */
  #toggle({ node }) {
    if (!this.#open.delete(node)) this.#open.add(node);
    this.#rebuild();
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const target = event.target instanceof Element ? event.target.closest('[data-row]') : null;
    const row = this.#rows[Number(target?.getAttribute('data-row') ?? -1)];
    if (row === undefined) return;
    this.#active = this.#rows.indexOf(row);
    this.#toggle(row);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const row = this.#rows[this.#active];
    if (row === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const open = (this.#rows[this.#active + 1]?.depth ?? 0) > row.depth;
    const page = Math.max(1, Math.floor(this.tree.clientHeight / ROW_HEIGHT) - 1);
    switch (event.key) {
      case 'ArrowDown':
        this.#goTo(this.#active + 1);
        break;
      case 'ArrowUp':
        this.#goTo(this.#active - 1);
        break;
      case 'PageDown':
        this.#goTo(this.#active + page);
        break;
      case 'PageUp':
        this.#goTo(this.#active - page);
        break;
      case 'Home':
        this.#goTo(0);
        break;
      case 'End':
        this.#goTo(this.#rows.length - 1);
        break;
      case 'ArrowRight':
        if (open) this.#goTo(this.#active + 1);
        else this.#toggle(row);
        break;
      case 'ArrowLeft':
        if (open) this.#toggle(row);
        else if (row.parent >= 0) this.#goTo(row.parent);
        break;
      case 'Enter':
      case ' ':
        this.#toggle(row);
        break;
      default:
        return;
    }
    event.preventDefault();
  }
}
