/**
 * The files of a report: paths as a tree of numbered nodes, what the image holds after each layer, and what differs
 * between two such states. Only arrays of numbers, so that 100,000 files cost milliseconds.
 */
'use strict';

const UNCHANGED = 0;
const ADDED = 1;
const CHANGED = 2;
const REMOVED = 3;
const STATUS_NAMES = ['', 'added', 'changed', 'removed'];

/** Node 0 is the root; a parent has a smaller number than its children. */
class Paths {
  /**
   * @param {readonly string[]} names
   * @param {readonly number[]} parents
   */
  constructor(names, parents) {
    this.names = names;
    this.parents = parents;
    this.count = names.length;
    /** @type {number[][]} */
    this.children = names.map(() => []);
    for (let node = 1; node < this.count; node++) this.children[/** @type {number} */ (parents[node])]?.push(node);
    /** @type {string[] | undefined} */
    this.lowerCase = undefined;
  }

  /** @param {number} node */
  parent(node) {
    return /** @type {number} */ (this.parents[node]);
  }

  /** @param {number} node */
  name(node) {
    return printable(/** @type {string} */ (this.names[node]));
  }

  /** @param {number} node */
  below(node) {
    return /** @type {number[]} */ (this.children[node]);
  }

  /** @param {number} node */
  path(node) {
    const parts = [];
    for (let at = node; at !== 0; at = this.parent(at)) parts.unshift(this.name(at));
    return `/${parts.join('/')}`;
  }

  /**
   * Nodes whose path holds the text, whatever its case.
   * @param {string} text
   */
  matching(text) {
    if (this.lowerCase === undefined) {
      const paths = [''];
      for (let node = 1; node < this.count; node++)
        paths.push(`${paths[this.parent(node)] ?? ''}/${(this.names[node] ?? '').toLowerCase()}`);
      this.lowerCase = paths;
    }
    const wanted = text.toLowerCase();
    const found = new Uint8Array(this.count);
    this.lowerCase.forEach((path, node) => {
      if (path.includes(wanted)) found[node] = 1;
    });
    return found;
  }
}

/** What is at each path: nothing, or a file of a size and content that a layer wrote. */
class State {
  /** @param {Paths} paths */
  constructor(paths) {
    this.paths = paths;
    /** Position of the layer from 1; 0: nothing here. */
    this.layer = new Uint16Array(paths.count);
    this.size = new Float64Array(paths.count);
    /** Number of the content; 0: none, or not known. */
    this.content = new Uint32Array(paths.count);
  }

  /** @param {number} node */
  clear(node) {
    const waiting = [node];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      this.layer[next] = 0;
      // Not spread into one call: a directory may hold more names than a call takes arguments.
      for (const child of this.paths.below(next)) waiting.push(child);
    }
  }

  /**
   * The image with its first `count` layers.
   * @param {Paths} paths
   * @param {readonly import('../src/cli/report/data.js').LayerData[]} layers
   * @param {number} count
   */
  static after(paths, layers, count) {
    const state = new State(paths);
    layers.slice(0, count).forEach((layer, index) => {
      layer.nodes.forEach((node, i) => {
        state.clear(node);
        if (layer.kinds[i] === 'd') return;
        // A file on the way to this one is a directory by now.
        for (let at = paths.parent(node); at !== 0; at = paths.parent(at)) state.layer[at] = 0;
        state.layer[node] = index + 1;
        state.size[node] = /** @type {number} */ (layer.sizes[i]);
        state.content[node] = /** @type {number} */ (layer.contents[i]);
      });
    });
    return state;
  }
}

/** What a tree shows: files with size, status and layer; of directories the sums. */
class Shown {
  /** @param {Paths} paths */
  constructor(paths) {
    this.paths = paths;
    /** 1: a file is here. */
    this.file = new Uint8Array(paths.count);
    this.status = new Uint8Array(paths.count);
    this.layer = new Uint16Array(paths.count);
    /** Bytes, of directories those of everything below. */
    this.size = new Float64Array(paths.count);
    /** Files here and below. */
    this.files = new Uint32Array(paths.count);
  }

  /**
   * @param {number} node
   * @param {number} size
   * @param {number} status
   * @param {number} layer
   */
  put(node, size, status, layer) {
    this.file[node] = 1;
    this.size[node] = size;
    this.status[node] = status;
    this.layer[node] = layer;
    this.files[node] = 1;
  }

  sumUp() {
    const { size, files, paths } = this;
    for (let node = paths.count - 1; node > 0; node--) {
      const parent = paths.parent(node);
      size[parent] = (size[parent] ?? 0) + (size[node] ?? 0);
      files[parent] = (files[parent] ?? 0) + (files[node] ?? 0);
    }
    return this;
  }

  /** @param {State} state */
  static state(state) {
    const shown = new Shown(state.paths);
    state.layer.forEach((layer, node) => {
      if (layer !== 0) shown.put(node, state.size[node] ?? 0, UNCHANGED, layer);
    });
    return shown.sumUp();
  }

  /**
   * What one layer does; `removals`: also what it takes away.
   * @param {Paths} paths
   * @param {import('../src/cli/report/data.js').LayerData} layer
   * @param {number} position
   * @param {boolean} removals
   */
  static layer(paths, layer, position, removals) {
    const shown = new Shown(paths);
    layer.nodes.forEach((node, i) => {
      const kind = layer.kinds[i];
      const status = kind === 'a' ? ADDED : kind === 'm' ? CHANGED : REMOVED;
      if (status !== REMOVED || removals) shown.put(node, layer.sizes[i] ?? 0, status, position);
    });
    return shown.sumUp();
  }

  /**
   * What differs; files of one size and content do not.
   * @param {State} before
   * @param {State} after
   */
  static difference(before, after) {
    const shown = new Shown(after.paths);
    for (let node = 1; node < after.paths.count; node++) {
      const was = before.layer[node] !== 0;
      const is = after.layer[node] !== 0;
      if (is && !was) shown.put(node, after.size[node] ?? 0, ADDED, after.layer[node] ?? 0);
      else if (was && !is) shown.put(node, before.size[node] ?? 0, REMOVED, before.layer[node] ?? 0);
      else if (is && (before.size[node] !== after.size[node] || before.content[node] !== after.content[node]))
        shown.put(node, after.size[node] ?? 0, CHANGED, after.layer[node] ?? 0);
    }
    return shown.sumUp();
  }

  /** Files and bytes of each status. */
  totals() {
    const totals = STATUS_NAMES.map(() => ({ files: 0, bytes: 0 }));
    this.file.forEach((file, node) => {
      const total = totals[this.status[node] ?? 0];
      if (file === 0 || total === undefined) return;
      total.files += 1;
      total.bytes += this.size[node] ?? 0;
    });
    return totals;
  }
}
