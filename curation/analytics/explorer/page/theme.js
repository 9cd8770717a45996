// Light, dark, or as the system says; the choice is remembered.

import {byId} from '/page/elements.js';

const THEMES = {auto: '◐ Auto', light: '☀ Light', dark: '☾ Dark'};

export function startTheme() {
  const button = byId('theme');
  const show = theme => {
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    button.setAttribute('aria-label', `Colours: ${theme}`);
  };
  let theme = localStorage.getItem('theme') ?? 'auto';
  if (!(theme in THEMES)) theme = 'auto';
  show(theme);
  button.addEventListener('click', () => {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    localStorage.setItem('theme', theme);
    show(theme);
  });
}
