// Elements are built from text, never from markup: captions come from strangers.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = id => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  return filled(made, attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value === 'boolean') made[name] = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

export function option(value, text, selected = false) {
  return element('option', {value, selected}, text);
}

export function toast(text) {
  const place = byId('toast');
  place.textContent = text;
  place.classList.add('seen');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => place.classList.remove('seen'), 2500);
}

export async function copied(text) {
  await navigator.clipboard.writeText(text).then(() => toast('Copied'), () => toast('The browser does not allow it'));
}
