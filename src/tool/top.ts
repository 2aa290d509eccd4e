/**
 * `tartan top`: live rates for each peer and each reason of a drop. On a terminal it keeps one screen, which it gives back
 * at the end; elsewhere it prints blocks, or a line of JSON each.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Status } from '../agent/status.js';
import { daemonStatus, type Call } from './commands.js';
import { exitStatus, type ExitStatus } from './error.js';
import { formatRate } from './peer-view.js';
import { ratesOf, type DropRate, type PeerRate, type Rates } from './rates.js';
import { truthOf, withoutCause } from './status-view.js';
import { formatTable, openPaint, withoutControls, type Column, type Paint } from './table.js';

export interface TopOptions {
  readonly intervalMs: number;
  /** How many times; undefined: until an interrupt. */
  readonly count: number | undefined;
}

/** ECMA-48 and xterm: another screen and back, the cursor away and back, home, erase to the end. */
const screen = {
  enter: '\u001b[?1049h\u001b[?25l',
  leave: '\u001b[?25h\u001b[?1049l',
  redraw: '\u001b[H\u001b[J',
} as const;
/** Peers in a block; a terminal shows what fits. */
const blockPeers = 50;
const shownDrops = 6;

export async function showTop(call: Call, options: TopOptions): Promise<ExitStatus> {
  const { io } = call;
  let before = await daemonStatus(call);
  let readMs = performance.now();
  const isScreen = io.isTty && call.output !== 'json';
  const { signal, release } = io.ports.terminal.onInterrupt();
  if (isScreen) io.stdout(`${screen.enter}${screen.redraw}${truth(before, openPaint(io))}`);
  try {
    for (let left = options.count ?? Infinity; left > 0; left--) {
      if (!(await slept(options.intervalMs, signal))) break;
      const reading = await io.ports.readStatus(call.settings.runDir);
      const nowMs = performance.now();
      if (reading.kind === 'unreachable') {
        tellAway(call, isScreen, reading.reason);
        continue;
      }
      const rates = ratesOf(before, reading.status, (nowMs - readMs) / 1000, new Date());
      write(call, isScreen, reading.status, rates);
      [before, readMs] = [reading.status, nowMs];
    }
  } finally {
    if (isScreen) io.stdout(screen.leave);
    release();
  }
  return exitStatus.ok;
}

/** @returns false when it was interrupted */
async function slept(ms: number, signal: AbortSignal): Promise<boolean> {
  return delay(ms, true, { signal }).catch(() => false);
}

/** A daemon that is restarted comes back. */
function tellAway({ io }: Call, isScreen: boolean, reason: string): void {
  const text = `tartand cannot be asked: ${withoutControls(reason)}\n`;
  if (isScreen) io.stdout(`${screen.redraw}${text}`);
  else io.stderr(`note: ${text}`);
}

function write({ io, output }: Call, isScreen: boolean, status: Status, rates: Rates): void {
  if (output === 'json') return io.stdout(`${JSON.stringify(rates)}\n`);
  const paint = openPaint(io);
  if (!isScreen) return io.stdout(`${formatRates(status, rates, blockPeers, paint)}\n`);
  const { rows, columns } = io.ports.terminal.size();
  const lines = formatRates(status, rates, rows, paint)
    .split('\n')
    .slice(0, Math.max(1, rows - 1));
  io.stdout(screen.redraw + lines.map(line => cut(line, columns)).join('\n'));
}

function formatRates(status: Status, rates: Rates, peers: number, paint: Paint): string {
  const [drops, shown] = [rates.drops.slice(0, shownDrops), rates.peers.slice(0, peers)];
  const sum = rates.drops.reduce((total, { perSecond }) => total + perSecond, 0);
  const parts = [
    `in ${formatRate(rates.received.bitsPerSecond)}, ${perSecond(rates.received.packetsPerSecond)} packets/s`,
    `out ${formatRate(rates.sent.bitsPerSecond)}, ${perSecond(rates.sent.packetsPerSecond)} packets/s`,
    `dropped ${perSecond(sum)} packets/s`,
  ];
  const dropTable = drops.length === 0 ? '' : `\n${formatTable(dropColumns, drops, 'table', paint)}`;
  const peerTable = shown.length === 0 ? '' : `\n${formatTable(peerColumns, shown, 'table', paint)}`;
  return `${truth(status, paint)}${parts.join('; ')}\n${dropTable}${peerTable}`;
}

function truth(status: Status, paint: Paint): string {
  const isWell = status.ready && status.health?.state !== 'impaired';
  return `${paint(withoutControls(withoutCause(truthOf(status), status)), isWell ? 'good' : 'bad')}\n`;
}

const dropColumns: readonly Column<DropRate>[] = [
  { title: 'DROPPED AS', cell: ({ counter }) => ({ text: counter, colour: 'bad' }) },
  { title: 'PACKETS/S', cell: rate => perSecond(rate.perSecond) },
  { title: 'TOTAL', cell: ({ total }) => String(total) },
];

const peerColumns: readonly Column<PeerRate>[] = [
  { title: 'PEER', cell: ({ subnet }) => subnet },
  { title: 'HOST', cell: ({ hostName }) => hostName ?? '-' },
  { title: 'STATE', cell: ({ state }) => (state === 'silent' ? { text: state, colour: 'bad' } : state) },
  { title: 'IN', cell: ({ received }) => formatRate(received.bitsPerSecond) },
  { title: 'PACKETS/S', cell: ({ received }) => perSecond(received.packetsPerSecond) },
  { title: 'OUT', cell: ({ sent }) => formatRate(sent.bitsPerSecond) },
  { title: 'PACKETS/S', cell: ({ sent }) => perSecond(sent.packetsPerSecond) },
  { title: 'RTT', cell: ({ rttMs }) => (rttMs === null ? '-' : `${rttMs.toFixed(2)} ms`) },
  { title: 'LOSS', cell: ({ loss }) => (loss === null ? '-' : `${Math.round(loss * 100)}%`) },
];

function perSecond(value: number): string {
  return value > 0 && value < 10 ? value.toFixed(1) : String(Math.round(value));
}

/** Cuts to the width of the screen; a colour that was cut is ended. */
function cut(line: string, columns: number): string {
  let [width, at] = [0, 0];
  while (at < line.length && width < columns) {
    const colour = /^\u001b\[\d+m/.exec(line.slice(at, at + 8))?.[0];
    at += colour?.length ?? 1;
    if (colour === undefined) width++;
  }
  return at < line.length ? `${line.slice(0, at)}\u001b[0m` : line;
}
