/*
 * The script of the page. It asks for data while somebody looks, and writes every text as text: what a peer calls itself
 * never becomes markup.
 */
'use strict';

const main = document.getElementById('main');
const ageLine = document.getElementById('age');
const shownAtOnce = 200;
/** A table of more hosts would have too many cells for a screen and for the browser. */
const tableHosts = 60;
let timer;
let turn = 0;
/** What the operator typed and opened, over new data. */
const kept = { filter: '', all: false };

/** Makes an element. Properties are set, never parsed; children are elements or texts. */
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {}))
    if (name === 'label') element.setAttribute('aria-label', value);
    else element[name] = value;
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}

function card(title, ...children) {
  return el('section', { className: 'card' }, title === null ? null : el('h2', {}, title), ...children);
}

function notice(text, bad) {
  return el('p', { className: bad ? 'notice bad' : 'notice' }, text);
}

function dot(kind) {
  return el('span', { className: `dot ${kind}` });
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  const told = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return told.map(([count, unit]) => `${count} ${unit}`).join(' ');
}

function milliseconds(value) {
  return value === null ? '–' : `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
}

function rate(bits) {
  if (bits === null) return '–';
  const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'];
  let unit = 0;
  while (bits >= 1000 && unit < 3) {
    bits /= 1000;
    unit++;
  }
  return `${bits < 10 && unit > 0 ? bits.toFixed(1) : bits.toFixed(0)} ${units[unit]}`;
}

function percent(part) {
  return part === null ? '–' : `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
}

/** Bytes, once where both ways carry the same. */
function pathMtu({ mtuOut, mtuIn }) {
  if (mtuOut === mtuIn) return mtuOut === null ? '–' : String(mtuOut);
  return `${mtuOut ?? '?'} out, ${mtuIn ?? '?'} in`;
}

/** columns: [title, class, cell of a row]; noteOf: what stands below a row over its whole width. */
function table(columns, rows, noteOf = () => null) {
  const head = columns.map(([title, kind]) => el('th', { className: kind, scope: 'col' }, title));
  const body = rows.flatMap(row => {
    const note = noteOf(row);
    const line = el('tr', { className: note ? 'noted' : '' });
    line.append(...columns.map(([, kind, cell]) => el('td', { className: kind }, cell(row))));
    if (!note) return [line];
    return [line, el('tr', {}, el('td', { className: 'note', colSpan: columns.length }, el('div', {}, note)))];
  });
  return el(
    'div',
    { className: 'scroll' },
    el('table', {}, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...body)),
  );
}

/** A card with a long table: a field that filters, and the first rows until all are asked for. */
function longTable(title, columns, rows, textOf, none, noteOf) {
  const place = el('div');
  const count = el('span', { className: 'faint' });
  const show = () => {
    const wanted = kept.filter.trim().toLowerCase();
    const found = wanted === '' ? rows : rows.filter(row => textOf(row).toLowerCase().includes(wanted));
    const shown = kept.all ? found : found.slice(0, shownAtOnce);
    count.textContent = found.length === rows.length ? `${rows.length}` : `${found.length} of ${rows.length}`;
    const more = el('button', { type: 'button' }, `Show all ${found.length}`);
    more.addEventListener('click', () => {
      kept.all = true;
      show();
    });
    place.replaceChildren(
      found.length === 0
        ? el('p', { className: 'faint' }, rows.length === 0 ? none : 'None has this text.')
        : table(columns, shown, noteOf),
      shown.length < found.length ? more : '',
    );
  };
  const field = el('input', { type: 'search', placeholder: 'Filter', value: kept.filter, label: `Filter ${title}` });
  field.addEventListener('input', () => {
    kept.filter = field.value;
    show();
  });
  show();
  return card(null, el('div', { className: 'tools' }, el('h2', {}, title), count, field), place);
}

const peerColumns = [
  ['Subnet', 'keep', row => row.subnet],
  ['Host', 'keep', row => row.name ?? '–'],
  ['Address', 'second', row => row.address],
  ['State', 'keep', row => [dot(row.state), row.state, row.since === null ? '' : ` ${duration(row.since)}`]],
  ['Round trip', 'number', row => milliseconds(row.p50)],
  ['p99', 'number second', row => milliseconds(row.p99)],
  ['Loss', 'number', row => percent(row.loss)],
  ['Path MTU', 'number second', pathMtu],
  ['Out', 'number', row => rate(row.out)],
  ['In', 'number', row => rate(row.in)],
  ['Backend', 'second', row => row.backend ?? '–'],
  ['Engine', 'second', row => row.engine ?? '–'],
];

function hostCards(view) {
  const problems = view.problems.map(({ place, text }) => notice(place === null ? text : `${place}: ${text}`, true));
  const facts = view.facts.map(([name, text]) => [el('dt', {}, name), el('dd', {}, text)]);
  const drops =
    view.drops.length === 0
      ? el('p', { className: 'faint' }, 'No packet was dropped.')
      : table(
          [
            ['Reason', '', row => row.reason],
            ['Direction', '', row => row.direction ?? '–'],
            ['Packets', 'number', row => row.packets.toLocaleString('en')],
          ],
          view.drops,
        );
  const refused = view.refused.map(({ key, reason }) => notice(`${key}: ${reason}`, false));
  return [
    card(
      null,
      el('h1', {}, view.name),
      el('p', { className: 'summary' }, dot(view.good ? 'good' : 'bad'), view.summary),
      ...problems,
    ),
    longTable(
      'Peers',
      peerColumns,
      view.peers,
      row => Object.values(row).join(' '),
      'There are no peers yet.',
      row => row.reason,
    ),
    el('div', { className: 'columns' }, card('Facts', el('dl', {}, ...facts)), card('Dropped packets', drops)),
    ...(refused.length === 0 ? [] : [card('Refused leases', ...refused)]),
  ];
}

function eventsCard(events, failure) {
  const columns = [
    ['Time', 'keep', event => event.time.replace('T', ' ').replace(/\.\d+/, '')],
    [
      'Level',
      'keep',
      event => [dot(event.level === 'info' ? 'good' : event.level === 'warn' ? 'held-down' : 'bad'), event.level],
    ],
    ['Event', 'second', event => event.event],
    ['What happened', 'text', event => event.message],
  ];
  const none = el('p', { className: 'faint' }, 'Nothing has happened lately.');
  return card(
    'Events',
    failure === null ? null : notice(failure, false),
    events.length === 0 ? none : table(columns, events),
  );
}

async function showHost() {
  const { view, failure, ageSeconds, events, eventsFailure, others } = await ask('data/host');
  document.getElementById('hosts-link').hidden = !others;
  return {
    ageSeconds,
    nextMs: 5000,
    cards: [
      ...(failure === null ? [] : [notice(`tartand of this host cannot be asked: ${failure}`, true)]),
      ...(view ? hostCards(view) : []),
      eventsCard(events, eventsFailure),
    ],
  };
}

const leaseColumns = [
  ['Subnet', 'keep', row => [row.subnet, row.self ? ' (this host)' : '']],
  ['Public address', 'keep', row => row.publicIp],
  ['Backend', 'second', row => row.backend],
  ['Time left', 'keep', row => (row.ttlSeconds === null ? 'reserved' : duration(row.ttlSeconds))],
  ['Node', 'text', row => row.nodeId ?? '–'],
];

async function showLeases() {
  const { value, ageSeconds, failure } = await ask('data/leases');
  const cards = failure === null ? [] : [notice(`etcd cannot be asked: ${failure}`, true)];
  if (value) {
    const { items, kept: keptSubnets, rejected } = value;
    cards.push(longTable('Leases', leaseColumns, items, row => Object.values(row).join(' '), 'There is no lease yet.'));
    const words = ({ subnet, nodeId, reserved }) => `${subnet} is ${reserved ? 'reserved' : 'kept'} for node ${nodeId}`;
    if (keptSubnets.length > 0)
      cards.push(card('Subnets without a lease', ...keptSubnets.map(row => el('div', {}, words(row)))));
    if (rejected.length > 0)
      cards.push(card('Refused entries', ...rejected.map(({ key, reason }) => notice(`${key}: ${reason}`, false))));
  }
  return { ageSeconds, nextMs: 10_000, cards };
}

/** By the characters of src/web/matrix.ts. */
const kinds = {
  u: ['up', '--up-fill'],
  l: ['up, with loss of more than 1 %', '--loss'],
  s: ['silent', '--bad'],
  k: ['its lease vanished, still routed', '--loss'],
  o: ['another host is known there', '--other'],
  w: ['not watched', '--none'],
  '?': ['not known yet', '--none-fill'],
  '.': ['itself', '--card'],
  ' ': ['not known there as a peer', '--card'],
};

function legend(rows) {
  const seen = new Set(rows.flatMap(({ cells }) => [...new Set(cells)]));
  const marks = { u: 'up', l: 'held-down', s: 'silent', k: 'held-down', o: 'other', w: '', '?': '' };
  const items = Object.keys(marks).filter(cell => seen.has(cell));
  return el(
    'ul',
    { className: 'legend' },
    ...items.map(cell => {
      const mark = dot(marks[cell]);
      mark.style.background = `var(${kinds[cell][1]})`;
      return el('li', {}, mark, kinds[cell][0]);
    }),
  );
}

function cellText({ columns, rows, reasons }, at, to) {
  const row = rows[at];
  const trip = row.roundTrips[to] >= 0 ? `, ${milliseconds(row.roundTrips[to] / 10)}` : '';
  const why = row.why.find(([column]) => column === to);
  const what = row.cells === '' ? (row.failure ?? 'no document') : (kinds[row.cells[to]] ?? kinds['?'])[0];
  return `${row.name} → ${columns[to]}: ${what}${trip}${why ? `; ${reasons[why[1]]}` : ''}`;
}

function linkOf(matrix, at) {
  return at < matrix.own ? '#host' : `#host/${at - matrix.own}`;
}

function matrixTable(matrix) {
  const { columns, rows } = matrix;
  const head = columns.map(name => el('th', { scope: 'col' }, el('span', {}, name)));
  const symbols = { u: '✓', l: '~', s: '✕', k: '…', o: '≠', w: '–', '?': '?', '.': '', ' ': '' };
  const body = rows.map((row, at) => {
    const cells = columns.map((_, to) => {
      const cell = row.cells[to] ?? ' ';
      const trip = row.roundTrips[to] ?? -1;
      const text = trip >= 0 && 'ul'.includes(cell) ? String(trip / 10) : symbols[cell];
      return el('td', { className: `cell-${cell === '?' ? 'q' : cell.trim()}`, title: cellText(matrix, at, to) }, text);
    });
    const link = el('a', { href: linkOf(matrix, at) }, row.name);
    return el('tr', {}, el('th', { scope: 'row' }, dot(row.good ? 'good' : 'bad'), link), ...cells);
  });
  const grid = el(
    'table',
    { className: 'matrix' },
    el('thead', {}, el('tr', {}, el('td', {}, 'from ↓ to →'), ...head)),
    el('tbody', {}, ...body),
  );
  return el('div', { className: 'scroll' }, grid);
}

/** One rectangle for a cell; a row of equal cells is drawn as one. */
function matrixCanvas(matrix) {
  const { columns, rows } = matrix;
  const side = Math.max(2, Math.min(12, Math.floor(1180 / columns.length)));
  const canvas = el('canvas', { width: columns.length * side, height: rows.length * side, label: 'Who reaches whom' });
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(
    Object.entries(kinds).map(([cell, [, name]]) => [cell, style.getPropertyValue(name)]),
  );
  const context = canvas.getContext('2d');
  rows.forEach(({ cells, failure }, at) => {
    const line = cells === '' ? (failure === null ? ' ' : 's').repeat(columns.length) : cells;
    for (let from = 0, to; from < line.length; from = to) {
      for (to = from + 1; line[to] === line[from];) to++;
      context.fillStyle = colours[line[from]] ?? colours['?'];
      context.fillRect(from * side, at * side, (to - from) * side, side);
    }
  });
  const under = el(
    'p',
    { id: 'under', className: 'faint' },
    'A row is what one host says of the others. Point at a cell to read it; a click opens the host.',
  );
  const placeOf = event => [Math.floor(event.offsetY / side), Math.floor(event.offsetX / side)];
  canvas.addEventListener('mousemove', event => {
    const [at, to] = placeOf(event);
    if (rows[at] && columns[to]) under.textContent = cellText(matrix, at, to);
  });
  canvas.addEventListener('click', event => {
    const [at] = placeOf(event);
    if (rows[at]) location.hash = linkOf(matrix, at);
  });
  return [el('div', { className: 'scroll' }, canvas), under];
}

async function showHosts() {
  const { value, ageSeconds, failure } = await ask('data/matrix');
  const { rows, columns } = value;
  document.getElementById('hosts-link').hidden = false;
  const silent = rows.reduce((count, { cells }) => count + cells.split('s').length - 1, 0);
  const bad = rows.filter(({ good }) => !good).length;
  const lost = rows.filter(row => row.failure !== null).length;
  const told = [
    `${rows.length} hosts`,
    `${bad} not well`,
    `${silent} ways silent`,
    ...(lost === 0 ? [] : [`${lost} not read`]),
  ];
  const listColumns = [
    ['Host', 'keep', row => [dot(row.good ? 'good' : 'bad'), el('a', { href: linkOf(value, row.at) }, row.name)]],
    ['Summary', 'text', row => row.failure ?? row.summary ?? (row.good ? 'ready' : 'not well')],
    ['Problems', 'number', row => row.problems],
    ['Age', 'keep', row => duration(row.ageSeconds)],
    ['From', 'second', row => row.source],
  ];
  const list = rows.map((row, at) => ({ ...row, at })).sort((a, b) => Number(a.good) - Number(b.good));
  const picture = columns.length > tableHosts ? matrixCanvas(value) : [matrixTable(value)];
  return {
    ageSeconds,
    nextMs: rows.length === 0 ? 1000 : rows.length > tableHosts ? 15_000 : 5000,
    cards: [
      ...(failure === null ? [] : [notice(`Hosts: ${failure}`, true)]),
      card('Who reaches whom', el('p', { className: 'summary' }, told.join(', ')), legend(rows), ...picture),
      longTable(
        'Hosts',
        listColumns,
        list,
        row => `${row.name} ${row.summary} ${row.failure} ${row.source}`,
        'No host has been read yet.',
      ),
    ],
  };
}

async function showOther(index) {
  const view = await ask(`data/other?n=${encodeURIComponent(index)}`);
  return {
    ageSeconds: null,
    nextMs: 15_000,
    cards: [el('p', {}, el('a', { href: '#hosts' }, '← Hosts')), ...hostCards(view)],
  };
}

async function ask(path) {
  const response = await fetch(path, { credentials: 'same-origin', cache: 'no-store' });
  if (response.status === 401) location.reload();
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

function viewOfHash() {
  const hash = location.hash.slice(1);
  if (hash === 'leases') return ['leases', showLeases];
  if (hash === 'hosts') return ['hosts', showHosts];
  const [, other] = /^host\/(\d+)$/.exec(hash) ?? [];
  return other === undefined ? ['host', showHost] : ['hosts', () => showOther(other)];
}

function writeAge(ageSeconds) {
  ageLine.textContent = ageSeconds === null ? '' : ageSeconds < 2 ? 'live' : `as of ${duration(ageSeconds)} ago`;
}

/** Keeps the field that is typed into, and what is scrolled, over new data. */
function replaceCards(cards) {
  const typing = document.activeElement?.type === 'search' ? document.activeElement.selectionStart : null;
  const scrolled = [...main.querySelectorAll('.scroll')].map(({ scrollLeft }) => scrollLeft);
  main.replaceChildren(...cards);
  main.querySelectorAll('.scroll').forEach((element, at) => (element.scrollLeft = scrolled[at] ?? 0));
  const field = main.querySelector('input[type=search]');
  if (typing === null || !field) return;
  field.focus();
  field.setSelectionRange(typing, typing);
}

async function show() {
  clearTimeout(timer);
  const mine = ++turn;
  const [name, read] = viewOfHash();
  for (const link of document.querySelectorAll('nav a'))
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  let nextMs = 5000;
  try {
    const made = await read();
    if (mine !== turn) return;
    ({ nextMs } = made);
    // What is read or selected with the mouse stays as it is.
    if (!getSelection().toString()) {
      replaceCards(made.cards);
      writeAge(made.ageSeconds);
    }
  } catch (error) {
    if (mine !== turn) return;
    replaceCards([notice(`tartan web cannot be asked: ${error.message}`, true)]);
  }
  main.dataset.shown = name;
  timer = setTimeout(() => document.visibilityState === 'visible' && show(), nextMs);
}

addEventListener('hashchange', () => {
  Object.assign(kept, { filter: '', all: false });
  main.replaceChildren(el('p', { className: 'faint' }, 'Reading…'));
  show();
});
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && show());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
show();
