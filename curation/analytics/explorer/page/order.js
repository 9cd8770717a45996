// The order of the grid, and which signals stand under the pictures.

import {byId, element, option} from '/page/elements.js';
import {on, ordered, signals, state, tell} from '/page/state.js';

export function startOrder() {
  const order = byId('order');
  order.append(option('', 'by key'));
  for (const signal of signals())
    order.append(option(`desc ${signal.name}`, `${signal.name}, highest first`), option(`asc ${signal.name}`, `${signal.name}, lowest first`));
  order.addEventListener('change', () => {
    const [way, ...name] = order.value.split(' ');
    ordered(order.value ? {by: name.join(' '), order: way} : {});
  });
  on('order', () => {
    order.querySelector('[value=like]')?.remove();
    if (state.like) order.prepend(option('like', 'most alike first'));
    order.value = state.like ? 'like' : state.by ? `${state.order} ${state.by}` : '';
  });
  const choices = state.about.facets.map(facet => {
    const box = element('input', {type: 'checkbox', checked: state.shown.includes(facet.name), onchange: () => {
      state.shown = box.checked ? [...state.shown, facet.name] : state.shown.filter(name => name !== facet.name);
      tell('shown');
    }});
    return element('label', {title: facet.meaning}, box, ' ', facet.name);
  });
  byId('shown-choices').append(...choices);
}
