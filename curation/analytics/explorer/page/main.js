// Starts the page: asks what there is, and hands every part its place.

import {ask, newest} from '/page/asking.js';
import {drawChips} from '/page/chips.js';
import {byId, element} from '/page/elements.js';
import {startExport} from '/page/export.js';
import {drawFacets, showCounts} from '/page/facets.js';
import {showRows, startGrid} from '/page/grid.js';
import {startKeys} from '/page/keys.js';
import {count, share} from '/page/numbers.js';
import {startOrder} from '/page/order.js';
import {showSearchError, startSearch} from '/page/search.js';
import {keep, on, restore, signals, state, tell} from '/page/state.js';
import {startThresholds} from '/page/thresholds.js';
import {startTheme} from '/page/theme.js';

let answered = state.selection;

const select = newest('select', (answer, wish) => {
  answered = wish;
  state.rows = answer.rows;
  showSearchError('');
  byId('count').replaceChildren(
    element('strong', {}, count(answer.rows)), ` of ${count(state.about.rows)} pairs`,
    element('span', {class: 'faint'}, ` · ${share(answer.rows, state.about.rows)}`));
  showCounts(answer.bars);
  tell('page');
}, error => { // what cannot be answered is not what is chosen: grid, counts and exports stay those of before
  state.selection = answered;
  tell('returned');
  showSearchError(error.message);
});

const page = newest('rows', answer => showRows(answer.rows), error => {
  showSearchError(error.message);
  showRows([]);
});

function askPage() {
  keep();
  const {selection, by, order, like, start, perPage} = state;
  byId('grid').setAttribute('aria-busy', 'true');
  page({selection, by, order, like, start, count: perPage});
}

async function start() {
  startTheme();
  state.about = await ask('about');
  restore();
  document.title = `${state.about.label} · Pairmill`;
  byId('label').textContent = state.about.label;
  const cut = [...new Set(state.about.thresholds.map(threshold => threshold.signal))];
  state.shown = (cut.length ? cut : signals().map(signal => signal.name)).slice(0, 2);
  if (innerWidth < 900) for (const panel of document.querySelectorAll('aside > details')) panel.open = false;
  drawFacets();
  startOrder();
  startSearch();
  startThresholds();
  startExport();
  startGrid();
  startKeys();
  on('selection', () => select(state.selection));
  on('selection', drawChips);
  on('returned', drawChips);
  on('order', drawChips);
  on('page', askPage);
  tell('order');
  tell('selection');
}

start().catch(error => showSearchError(error.message));
