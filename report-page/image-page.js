/** The page about an image: its layers, its files, what is wasted, and what differs between two of its states or two images. */
'use strict';

/** @typedef {import('../src/cli/report/data.js').ImageReport} ImageReport */
/** @typedef {import('../src/cli/report/data.js').ReportedImage} ReportedImage */
/** @typedef {import('../src/cli/report/data.js').LayerData} LayerData */

/** @param {ImageReport} report */
function imagePage(report) {
  const [image] = report.images;
  const paths = new Paths(report.names, report.parents);
  document.title = `${printable(image.name)} – image report`;
  const files = new TreeView('files', 'Files');
  const treemap = new Treemap();
  const details = element('div', { class: 'details-of-layer', role: 'status' });

  /** @param {number} chosen position from 1; 0: the image */
  const choose = (chosen) => {
    buttons.forEach((button, position) => button.setAttribute('aria-pressed', String(position === chosen)));
    const layer = image.layers[chosen - 1];
    details.replaceChildren(
      ...(layer === undefined ? imageDetails(image) : layerDetails(layer, chosen, image.layers.length)),
    );
    if (layer === undefined) {
      const all = Shown.state(State.after(paths, image.layers, image.layers.length));
      files.show(all, false);
      treemap.show(all);
    } else {
      files.show(Shown.layer(paths, layer, chosen, true), true);
      treemap.show(Shown.layer(paths, layer, chosen, false));
    }
  };
  const buttons = [layerButton('all', image.bytes, ''), ...image.layers.map(buttonOfLayer)];
  buttons.forEach((button, position) => button.addEventListener('click', () => choose(position)));
  choose(0);

  const views = [
    { title: 'Files', panel: element('div', {}, [files.root]) },
    { title: 'Treemap', panel: element('div', {}, [treemap.root]) },
    { title: 'Waste', panel: element('div', {}, wasteOf(image)) },
    { title: 'Duplicates', panel: element('div', {}, duplicatesOf(image)) },
    { title: 'Biggest files', panel: element('div', {}, biggestOf(image)) },
    { title: 'Compare', panel: element('div', {}, [comparison(paths, report)]) },
  ];
  const [bar, ...rest] = buttons;
  document
    .querySelector('main')
    ?.replaceChildren(
      element('h1', {}, printable(image.name)),
      facts(image),
      element('h2', {}, 'Layers'),
      element('div', { class: 'layers', role: 'group', 'aria-label': 'Layers, base first' }, [
        ...(bar === undefined ? [] : [bar]),
        element('div', { class: 'bar' }, rest),
      ]),
      details,
      tabs('Views', views),
    );
}

/**
 * @param {LayerData} layer
 * @param {number} index
 */
function buttonOfLayer(layer, index) {
  const bytes = layer.added.bytes + layer.changed.bytes;
  const made = layer.createdBy === '' ? '' : `: ${printable(layer.createdBy)}`;
  const button = layerButton(String(index + 1), bytes, made);
  button.title = `Layer ${index + 1}, ${formatBytes(bytes)}${made}`;
  button.style.flexGrow = String(Math.max(bytes, 1));
  return button;
}

/**
 * @param {string} name
 * @param {number} bytes
 * @param {string} made heard, not seen: there is no room for it
 */
function layerButton(name, bytes, made) {
  return element('button', { type: 'button' }, [
    element('span', { class: 'heard' }, 'Layer '),
    element('span', { class: 'label' }, name),
    ' ',
    element('span', { class: 'label' }, formatBytes(bytes)),
    element('span', { class: 'heard' }, made),
  ]);
}

/** @param {ReportedImage} image */
function facts(image) {
  const percent = `${(image.efficiency * 100).toFixed(1)} %`;
  /** @type {[string, string][]} */
  const rows = [
    ['Id', image.id],
    ['Platform', image.platform],
    ['Created', image.created],
    ['Size', `${formatBytes(image.bytes)} in ${counted(image.layers.length, 'layer')}`],
    ['Wasted', `${formatBytes(image.wastedBytes)} written, and later replaced or removed: ${percent} efficient`],
  ];
  return element(
    'dl',
    { class: 'facts' },
    rows.flatMap(([term, value]) => [
      element('dt', {}, term),
      element('dd', {}, printable(value === '' ? 'not known' : value)),
    ]),
  );
}

/** @param {ReportedImage} image */
function imageDetails(image) {
  return [
    element('h3', {}, 'The image as all layers make it'),
    element(
      'p',
      {},
      image.layers.length === 0
        ? 'It has no layers.'
        : 'Choose a layer above to see what it alone adds, changes and removes.',
    ),
  ];
}

/**
 * @param {LayerData} layer
 * @param {number} position
 * @param {number} layers
 */
function layerDetails(layer, position, layers) {
  /** @param {{ files: number, bytes: number }} part */
  const part = ({ files, bytes }) => `${counted(files, 'file')}, ${formatBytes(bytes)}`;
  return [
    element('h3', {}, `Layer ${position} of ${layers}`),
    element(
      'pre',
      { tabindex: '0', role: 'region', 'aria-label': 'The step that made the layer' },
      printable(layer.createdBy === '' ? 'The image does not tell which step made this layer.' : layer.createdBy),
    ),
    element('p', {}, `Adds ${part(layer.added)}; changes ${part(layer.changed)}; removes ${part(layer.removed)}.`),
    element('p', { class: 'id' }, `Diff id ${layer.diffID}`),
    element('p', { class: 'id' }, `Chain id ${layer.chainID}`),
    ...(layer.comment === '' ? [] : [element('p', {}, `Comment: ${printable(layer.comment)}`)]),
  ];
}

/** @param {ReportedImage} image */
function wasteOf(image) {
  const rows = image.wasted.map(({ path, bytes, times }) => [
    `/${printable(path)}`,
    formatBytes(bytes),
    formatCount(times),
  ]);
  return [
    element(
      'p',
      {},
      'Bytes that a layer writes and a later one replaces or removes: they are fetched and kept for nothing.',
    ),
    table('Wasted bytes by path', ['Path', 'Bytes', 'Times'], rows, 'Nothing is wasted.'),
  ];
}

/** @param {ReportedImage} image */
function duplicatesOf(image) {
  const rows = image.duplicates.map(({ size, bytes, copies, files }) => [
    element('div', {}, [
      ...files.map(({ path, layer }) => element('div', {}, `/${printable(path)} (layer ${layer + 1})`)),
      ...(copies > files.length ? [element('div', {}, `and ${formatCount(copies - files.length)} more`)] : []),
    ]),
    formatBytes(bytes),
    formatBytes(size),
    formatCount(copies),
  ]);
  return [
    element('p', {}, 'Files of one size and one checksum, wherever they lie: all copies but one could be saved.'),
    table(
      'Contents that lie in the image several times',
      ['Paths', 'Could be saved', 'One copy', 'Copies'],
      rows,
      'There are none of 512 bytes or more.',
    ),
  ];
}

/** @param {ReportedImage} image */
function biggestOf(image) {
  const rows = image.biggest.map(({ path, size, layer }) => [
    `/${printable(path)}`,
    formatBytes(size),
    formatCount(layer + 1),
  ]);
  return [table('Biggest files of all layers', ['Path', 'Bytes', 'Layer'], rows, 'There are no files with content.')];
}

/**
 * @param {Paths} paths
 * @param {ImageReport} report
 */
function comparison(paths, report) {
  const [image, other] = report.images;
  /** Every state that can be compared. */
  const states = report.images.flatMap((each, index) => [
    { image: each, index, layers: 0 },
    ...each.layers.map((_, layer) => ({ image: each, index, layers: layer + 1 })),
  ]);
  const choices = states.map((state, i) => /** @type {[string, string]} */ ([String(i), stateName(state)]));
  const tree = new TreeView('differences', 'Differences');
  const totals = element('p', { role: 'status' });
  const show = () => {
    const [from, to] = [before, after].map(({ select }) => {
      const state = /** @type {typeof states[number]} */ (states[Number(select.value)]);
      return State.after(paths, state.image.layers, state.layers);
    });
    const difference = Shown.difference(/** @type {State} */ (from), /** @type {State} */ (to));
    const [, added, changed, removed] = difference.totals();
    /** @param {{ files: number, bytes: number } | undefined} total */
    const part = (total) => `${counted(total?.files ?? 0, 'file')} (${formatBytes(total?.bytes ?? 0)})`;
    totals.textContent = `Added ${part(added)}, changed ${part(changed)}, removed ${part(removed)}.`;
    tree.show(difference, true);
  };
  const before = selection('From', choices, show);
  const after = selection('to', choices, show);
  // From the other image to this one; with one image, what its last layer does.
  const last = image.layers.length;
  before.select.value = String(other === undefined ? Math.max(last - 1, 0) : states.length - 1);
  after.select.value = String(last);
  show();
  return element('div', {}, [element('div', { class: 'tools' }, [before.field, after.field]), totals, tree.root]);
}

/** @param {{ image: ReportedImage, layers: number }} state */
function stateName({ image, layers }) {
  const name = printable(image.name);
  if (layers === 0) return `${name}: nothing yet`;
  return layers === image.layers.length ? `${name}: all ${counted(layers, 'layer')}` : `${name}: after layer ${layers}`;
}
