// A signal's histogram: all rows behind, those of the selection before; dragging, or two numbers, keep a range.

import {element, svg} from '/page/elements.js';
import {count, edge, short} from '/page/numbers.js';
import {setRange, state} from '/page/state.js';

const HEIGHT = 56;
const BAR = 5;

export function histogramOf(facet) {
  const used = Math.min(facet.bars, Math.max(1, Math.ceil((facet.high - facet.start) / facet.width + 1e-9)));
  const wide = used * BAR;
  const end = facet.start + used * facet.width;
  const behind = svg('path', {class: 'behind'});
  behind.setAttribute('d', bars(state.about.bars[facet.name], used));
  const before = svg('path', {class: 'before'});
  const brush = svg('rect', {class: 'brush', y: 0, height: HEIGHT, width: 0, x: 0});
  const lines = svg('g', {class: 'lines'});
  const picture = svg('svg', {viewBox: `0 0 ${wide} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': `Histogram of ${facet.name}`}, behind, before, brush, lines);
  const low = bound(facet, 'from', () => apply());
  const high = bound(facet, 'to', () => apply());
  const note = element('span', {class: 'faint note'});
  const made = element('figure', {class: 'facet', 'data-facet': facet.name},
    element('figcaption', {title: facet.meaning}, facet.name, note), picture,
    element('div', {class: 'axis'}, tick(facet.start, facet.low < facet.start ? '≤ ' : ''), low.label, high.label,
      tick(end, facet.high > end ? '≥ ' : '')));
  let first = null;

  function apply() {
    setRange(facet.name, low.value(), high.value());
  }

  function at(event) {
    const box = picture.getBoundingClientRect();
    const bar = Math.round((event.clientX - box.left) / box.width * used);
    return Math.min(used, Math.max(0, bar));
  }

  // A range that ends at the axis's end has no bound there: outliers lie beyond it.
  function drag(a, b) {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    if (from === to) return setRange(facet.name, null, null);
    const upper = facet.whole ? facet.start + to * facet.width - 1 : facet.start + to * facet.width;
    setRange(facet.name, from === 0 ? null : edge(facet.start + from * facet.width), to === used ? null : edge(upper));
  }

  picture.addEventListener('pointerdown', event => {
    first = at(event);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener('pointermove', event => first !== null && drag(first, at(event)));
  picture.addEventListener('pointerup', event => {
    if (first !== null) drag(first, at(event));
    first = null;
  });

  picture.addEventListener('pointercancel', () => { first = null; });

  const x = value => Math.min(wide, Math.max(0, (value - facet.start) / facet.width * BAR));

  function show(counts) {
    before.setAttribute('d', bars(counts, used));
    const [from, to] = state.selection.ranges[facet.name] ?? [null, null];
    low.set(from);
    high.set(to);
    const left = from === null ? 0 : x(from);
    const right = to === null ? wide : x(facet.whole ? to + 1 : to);
    brush.setAttribute('x', left);
    brush.setAttribute('width', from === null && to === null ? 0 : Math.max(1, right - left));
    const without = counts[60] + counts[61];
    note.textContent = without ? ` · ${count(without)} without` : '';
  }

  function drawLines() {
    lines.replaceChildren(...(state.lines[facet.name] ?? []).map(value =>
      svg('line', {x1: x(value), x2: x(value), y1: 0, y2: HEIGHT})));
  }
  return {element: made, show, drawLines};
}

function bars(counts, used) {
  const most = Math.max(1, ...counts.slice(0, used));
  return counts.slice(0, used).map((rows, bar) => {
    const tall = rows ? Math.max(1, rows / most * HEIGHT) : 0;
    return tall ? `M${bar * BAR},${HEIGHT}v${-tall}h${BAR - 1}v${tall}z` : '';
  }).join('');
}

const tick = (value, sign) => element('span', {class: 'tick'}, sign + short(edge(value)));

function bound(facet, name, changed) {
  const input = element('input', {type: 'number', step: 'any', placeholder: name, onchange: changed,
    'aria-label': `${facet.name} ${name}`});
  const value = () => input.value === '' ? null : Number(input.value);
  const set = to => { if (document.activeElement !== input) input.value = to ?? ''; };
  return {label: input, value, set};
}
