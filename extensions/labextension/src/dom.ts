/** Elements with text; nothing is ever set as HTML, since titles, notes and sources are untrusted. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = '',
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) {
    node.className = className;
  }
  node.append(...children);
  return node;
}

export function button(text: string, act: () => void, title = ''): HTMLButtonElement {
  const node = element('button', 'jp-mod-styled kel-button', text);
  node.title = title;
  node.addEventListener('click', act);
  return node;
}

export function table(caption: string, columns: string[]): { table: HTMLTableElement; body: HTMLTableSectionElement } {
  const node = element('table', 'kel-table', element('caption', '', caption));
  const head = element('tr');
  for (const column of columns) {
    const cell = element('th', '', column);
    cell.scope = 'col';
    head.append(cell);
  }
  node.append(element('thead', '', head));
  const body = node.createTBody();
  return { table: node, body };
}

export const times = (value: number) => `${value.toFixed(2)}×`;
