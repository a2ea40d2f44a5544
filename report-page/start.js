/** Draws the page that the data is for. */
'use strict';

/** @type {import('../src/cli/report/data.js').Report} */
const report = JSON.parse(document.getElementById('data')?.textContent ?? '');
imagePage(report);
