// The controls of a threshold: signal, kind, slider and number, where the step stands.

import {element, option} from '/page/elements.js';
import {count, edge} from '/page/numbers.js';
import {categories, signals, state} from '/page/state.js';

// `own` is a step of the version to begin with; with a signal only, a `keep` at the end.
export function controls(own, changed) {
  const name = choice('Signal', signals().map(signal => [signal.name, signal.name]), own.signal);
  const kind = choice('Step', [['ge', 'keep ≥'], ['le', 'keep ≤'], ['between', 'keep between'], ['top', 'top, highest'], ['bottom', 'top, lowest']], !own.fraction ? 'ge' : own.order === 'asc' ? 'bottom' : 'top');
  const low = slider('Value', 'low');
  const high = slider('To', 'high');
  const fraction = slider('Fraction', 'fraction');
  fraction.limits(0.001, 1, 0.001, own.fraction ?? 0.3);
  const per = choice('Within each', [['', '(all together)'], ...categories().map(each => [each.name, each.name])], own.per ?? '');
  const before = choice('Stands', [], '');
  const parts = {low, high, fraction, per};
  const shown = {ge: ['low'], le: ['high'], between: ['low', 'high'], top: ['fraction', 'per'], bottom: ['fraction', 'per']};

  const facet = () => signals().find(signal => signal.name === name.value());

  function renew() {
    const {start, width, low: least, high: most, bars, whole} = facet();
    const from = Math.max(least, start);
    const to = Math.min(most, start + bars * width);
    const step = whole ? 1 : edge(width / 10);
    const round = value => edge(Math.round(value / step) * step);
    low.limits(edge(Math.floor(from / step) * step), edge(Math.ceil(to / step) * step), step, round(from + 0.4 * (to - from)));
    high.limits(edge(Math.floor(from / step) * step), edge(Math.ceil(to / step) * step), step, round(from + 0.6 * (to - from)));
    before.offer(places(facet()));
  }

  function arrange() {
    for (const [part, control] of Object.entries(parts)) control.element.hidden = !shown[kind.value()].includes(part);
    changed();
  }

  function wish() {
    const uses = shown[kind.value()];
    const base = {signal: name.value(), before: before.value()};
    if (!uses.includes('fraction'))
      return {...base, kind: 'keep', low: uses.includes('low') ? low.number() : null, high: uses.includes('high') ? high.number() : null};
    return {...base, kind: 'top', fraction: fraction.text(), per: per.value() || null, order: kind.value() === 'top' ? 'desc' : 'asc'};
  }

  name.select.addEventListener('change', () => { renew(); arrange(); });
  kind.select.addEventListener('change', arrange);
  for (const control of [per, before]) control.select.addEventListener('change', changed);
  for (const control of [low, high, fraction]) control.listen(changed);
  renew();
  before.choose(own.step ?? '');
  for (const [part, control] of Object.entries(parts)) control.element.hidden = !shown[kind.value()].includes(part);
  const made = element('div', {class: 'controls'}, name.element, kind.element, low.element, high.element,
    fraction.element, per.element, before.element);
  return {element: made, wish};
}

// A step can stand where its signal is there already: after the step that adds it.
function places(facet) {
  const steps = state.about.steps;
  const added = steps.findIndex(step => step.step === facet.step);
  const after = steps.slice(Math.max(added, 0) + 1);
  return [['', `at the end (${count(state.about.curated)})`],
    ...after.map(step => [step.step, `before ${step.step} (${count(step.rows_in)})`])];
}

function choice(text, pairs, value) {
  const select = element('select', {'aria-label': text});
  const offer = offered => {
    const chosen = select.value;
    select.replaceChildren(...offered.map(([each, said]) => option(each, said)));
    select.value = offered.some(([each]) => each === chosen) ? chosen : offered[0]?.[0] ?? '';
  };
  const choose = wanted => { if (pairsHave(wanted)) select.value = wanted; };
  const pairsHave = wanted => [...select.options].some(each => each.value === wanted);
  offer(pairs);
  choose(value);
  return {element: element('label', {class: 'choice'}, element('span', {}, text), select), select, offer, choose, value: () => select.value};
}

function slider(text, name) {
  const range = element('input', {type: 'range', 'aria-label': `${text}, slider`});
  const exact = element('input', {type: 'number', step: 'any', 'aria-label': text, name});
  const limits = (min, max, step, value) => {
    Object.assign(range, {min, max, step});
    range.value = value;
    exact.value = value;
  };
  const listen = changed => {
    range.addEventListener('input', () => { exact.value = range.value; changed(); });
    exact.addEventListener('input', () => { range.value = exact.value; changed(); });
  };
  const number = () => exact.value === '' ? null : Number(exact.value);
  return {element: element('label', {class: 'slider'}, element('span', {}, text), range, exact), limits, listen, number, text: () => exact.value || '0'};
}
