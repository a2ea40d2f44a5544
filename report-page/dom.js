/**
 * What every part of a report page uses: elements, numbers as people read them, names as they can be shown. Text reaches
 * the page by `textContent` alone, so that a file's name never becomes markup.
 */
'use strict';

/**
 * A new element. `attributes` are set as they are; `text` becomes its text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} [attributes]
 * @param {string | (Node | string)[]} [content]
 * @returns {HTMLElementTagNameMap[K]}
 */
function element(tag, attributes = {}, content = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (typeof content === 'string') made.textContent = content;
  else made.append(...content);
  return made;
}

/**
 * Bytes as the command line shows them: `123 B`, `45.6 kB`, `1.23 GB`.
 * @param {number} bytes
 */
function formatBytes(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

/** @param {number} count */
function formatCount(count) {
  return count.toLocaleString('en-US');
}

/**
 * `1 file`, `2 files`
 * @param {number} count
 * @param {string} what
 */
function counted(count, what) {
  return `${formatCount(count)} ${what}${count === 1 ? '' : 's'}`;
}

/**
 * A name as it can be shown: what would be invisible, or would turn the text around it, is written as its code.
 * @param {string} name
 */
function printable(name) {
  return name.replace(
    /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * A table whose first column is a name and whose others are numbers or words.
 * @param {string} caption
 * @param {readonly string[]} titles
 * @param {readonly (readonly (string | Node)[])[]} rows
 * @param {string} nothing said in place of a table without rows
 */
function table(caption, titles, rows, nothing) {
  if (rows.length === 0) return element('p', { class: 'nothing' }, nothing);
  const head = titles.map((title, i) => element('th', { scope: 'col', class: i === 0 ? 'name' : 'number' }, title));
  const body = rows.map((cells) =>
    element(
      'tr',
      {},
      cells.map((cell, i) =>
        i === 0 ? element('th', { scope: 'row', class: 'name' }, [cell]) : element('td', { class: 'number' }, [cell]),
      ),
    ),
  );
  return element('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption }, [
    element('table', {}, [
      element('caption', {}, caption),
      element('thead', {}, [element('tr', {}, head)]),
      element('tbody', {}, body),
    ]),
  ]);
}

/**
 * Tabs with one panel each, by the pattern of the ARIA practices: arrow keys, Home and End move between tabs.
 * @param {string} label
 * @param {readonly { title: string, panel: HTMLElement, shown?: () => void }[]} parts
 */
function tabs(label, parts) {
  const list = element('div', { role: 'tablist', 'aria-label': label, class: 'tabs' });
  const buttons = parts.map(({ title, panel }, index) => {
    panel.id = `panel-${index}`;
    panel.setAttribute('role', 'tabpanel');
    panel.setAttribute('aria-labelledby', `tab-${index}`);
    const tab = element(
      'button',
      { role: 'tab', id: `tab-${index}`, 'aria-controls': panel.id, type: 'button' },
      title,
    );
    list.append(tab);
    return tab;
  });
  /** @param {number} wanted */
  const choose = (wanted) => {
    parts.forEach(({ panel }, index) => {
      const tab = /** @type {HTMLButtonElement} */ (buttons[index]);
      panel.hidden = index !== wanted;
      tab.setAttribute('aria-selected', String(index === wanted));
      tab.tabIndex = index === wanted ? 0 : -1;
    });
    parts[wanted]?.shown?.();
  };
  buttons.forEach((tab, index) => {
    tab.addEventListener('click', () => choose(index));
    tab.addEventListener('keydown', (event) => {
      const last = buttons.length - 1;
      const moves = {
        ArrowLeft: index === 0 ? last : index - 1,
        ArrowRight: index === last ? 0 : index + 1,
        Home: 0,
        End: last,
      };
      const next = moves[/** @type {keyof typeof moves} */ (event.key)];
      if (next === undefined) return;
      event.preventDefault();
      choose(next);
      buttons[next]?.focus();
    });
  });
  choose(0);
  return element('section', {}, [list, ...parts.map(({ panel }) => panel)]);
}

/**
 * @param {string} label
 * @param {readonly (readonly [value: string, text: string])[]} choices
 * @param {() => void} changed
 */
function selection(label, choices, changed) {
  const select = element(
    'select',
    {},
    choices.map(([value, text]) => element('option', { value }, text)),
  );
  select.addEventListener('change', changed);
  return { select, field: element('label', { class: 'field' }, [`${label} `, select]) };
}
