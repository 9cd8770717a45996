// What is chosen, in one place; whoever changes it says so, and whoever shows it listens.

export const state = {
  about: null,
  selection: {ranges: {}, values: {}, sql: '', words: ''},
  by: null, order: 'desc', like: null,
  start: 0, perPage: 60, rows: 0,
  shown: [],
  lines: {}, // signal → values of the threshold that is tried
};

const heard = new EventTarget();

export const on = (what, listener) => heard.addEventListener(what, event => listener(event.detail));
export const tell = (what, detail) => heard.dispatchEvent(new CustomEvent(what, {detail}));

export function selected(change) {
  state.selection = {...state.selection, ...change};
  state.start = 0;
  tell('selection');
}

export function setRange(name, low, high) {
  const ranges = {...state.selection.ranges};
  if (low === null && high === null) delete ranges[name];
  else ranges[name] = [low, high];
  selected({ranges});
}

export function toggleValue(name, label) {
  const values = {...state.selection.values};
  const before = values[name] ?? [];
  const after = before.includes(label) ? before.filter(other => other !== label) : [...before, label];
  if (after.length) values[name] = after;
  else delete values[name];
  selected({values});
}

export function ordered(change) {
  Object.assign(state, {by: null, order: 'desc', like: null, start: 0}, change);
  tell('order');
  tell('page');
}

// A reload shows what was chosen before; whoever opens the page anew begins with everything.
const KEPT = 'chosen';

export function keep() {
  const {about: {label}, selection, by, order, like} = state;
  sessionStorage.setItem(KEPT, JSON.stringify({label, chosen: {selection, by, order, like}}));
}

export function restore() {
  const [{type}] = performance.getEntriesByType('navigation');
  const {label, chosen} = JSON.parse(sessionStorage.getItem(KEPT) ?? '{}');
  if (type !== 'navigate' && label === state.about.label) Object.assign(state, chosen);
}

export const signals = () => state.about.facets.filter(facet => facet.kind === 'signal');
export const categories = () => state.about.facets.filter(facet => facet.kind === 'category');
