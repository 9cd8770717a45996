// All distributions: signals as histograms, columns of few values as bars; what is the same for all rows stays folded.

import {byId, element} from '/page/elements.js';
import {categoryOf} from '/page/category.js';
import {histogramOf} from '/page/histogram.js';
import {on, state} from '/page/state.js';

const drawn = new Map();
const MINOR = /(_status|_error|^error|_reason|_tokens|^original_|_id)$/;

export function drawFacets() {
  const major = element('div', {class: 'facets'});
  const minor = element('div', {class: 'facets'});
  for (const facet of inOrder(state.about.facets)) {
    const made = facet.kind === 'signal' ? histogramOf(facet) : categoryOf(facet);
    drawn.set(facet.name, made);
    (isMinor(facet) ? minor : major).append(made.element);
  }
  const more = element('details', {class: 'more'}, element('summary', {}, `${minor.children.length} more columns`), minor);
  byId('facets').replaceChildren(major, ...(minor.children.length ? [more] : []));
  const {left_out: leftOut} = state.about;
  if (leftOut.length) byId('facets').append(element('p', {class: 'hint'}, `Not drawn, but open to SQL: ${leftOut.join(', ')}`));
  if (!drawn.size) byId('facets').append(element('p', {class: 'hint'}, 'This version has no rows to show.'));
  on('lines', () => drawn.forEach(made => made.drawLines?.()));
}

// What the version's own steps decided by comes first.
function inOrder(facets) {
  const cut = new Set(state.about.thresholds.map(threshold => threshold.signal));
  const rank = facet => facet.name === 'fate' ? 0 : cut.has(facet.name) ? 1 : facet.name === 'fate_step' ? 2 : 3;
  return [...facets].sort((a, b) => rank(a) - rank(b));
}

const isMinor = facet => MINOR.test(facet.name) || facet.name.startsWith('original_') || (facet.kind === 'signal' && facet.low === facet.high);

export function showCounts(bars) {
  drawn.forEach((made, name) => made.show(bars[name]));
}
