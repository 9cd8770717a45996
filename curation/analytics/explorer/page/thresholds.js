// A threshold to try: what a keep or a top would leave, which pictures lie at its edge, and the step to paste.

import {newest} from '/page/asking.js';
import {byId, element, option} from '/page/elements.js';
import {yamlOf} from '/page/export.js';
import {card} from '/page/grid.js';
import {count, share} from '/page/numbers.js';
import {on, setRange, signals, state, tell} from '/page/state.js';
import {controls} from '/page/threshold_controls.js';

let made = null;
let answerPlace = null;

export function startThresholds() {
  const form = byId('threshold');
  form.addEventListener('submit', event => event.preventDefault());
  if (!signals().length) {
    form.append(element('p', {class: 'hint'}, 'This version has no signal to cut.'));
    return;
  }
  const own = state.about.thresholds.findLast(threshold => threshold.fraction);
  made = controls(own ?? {signal: signals().at(-1).name}, changed);
  answerPlace = element('div', {id: 'effect', 'aria-live': 'polite'});
  form.append(made.element, answerPlace);
  on('selection', changed);
  on('returned', changed);
  byId('threshold-panel').addEventListener('toggle', changed);
}

function changed() {
  if (byId('threshold-panel').open) question({selection: state.selection, ...made.wish()});
}

const question = newest('threshold', show, error => {
  answerPlace.replaceChildren(element('p', {class: 'error'}, error.message));
});

function show(answer, wish) {
  const keeps = wish.kind === 'keep';
  const cut = keeps ? [wish.low, wish.high] : wish.per ? [] : [answer.edges[0]?.kept[0]?.[wish.signal]];
  state.lines = {[wish.signal]: cut.filter(value => typeof value === 'number')};
  tell('lines');
  const where = wish.before ? `alive before ${wish.before}` : 'alive at the end';
  answerPlace.replaceChildren(
    tally('alive', answer.alive, where),
    tally('selected', answer.selected, 'in the selection'),
    yamlOf(answer.yaml),
    ...(answer.groups.length ? [groups(answer.groups, wish.per)] : []),
    ...(keeps ? [element('button', {type: 'button', onclick: () => setRange(wish.signal, wish.low, wish.high)}, 'Filter the grid by it')] : []),
    ...answer.edges.flatMap(strips));
}

function groups(all, per) {
  return element('details', {class: 'groups'}, element('summary', {}, `Within each ${per}`),
    ...all.map(group => tally('group', group, `${per} ${group.label ?? 'NULL'}`)));
}

function tally(name, {kept, of}, what) {
  return element('p', {class: `tally ${name}`, 'data-kept': kept, 'data-of': of},
    element('strong', {}, count(kept)), ` of ${count(of)} ${what}`,
    element('span', {class: 'faint'}, ` · ${share(kept, of)}`), element('progress', {max: Math.max(of, 1), value: kept}));
}

function strips({kept, dropped}) {
  const strip = (rows, name, text) => element('section', {class: `edge ${name}`}, element('h3', {}, text),
    rows.length ? element('div', {class: 'strip'}, ...rows.map(small)) : element('p', {class: 'hint'}, 'none in the selection'));
  return [strip(kept, 'kept', 'Just kept'), strip(dropped, 'dropped', 'Just dropped')];
}

function small(row) {
  const found = card(row, null, [made.wish().signal]);
  found.setAttribute('tabindex', 0);
  return found;
}
