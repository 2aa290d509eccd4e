/** `tartan events`: what happened on this host lately, from its daemon, or from the state directory while that is away. */
import { setTimeout as delay } from 'node:timers/promises';
import type { KeptEvent } from '../admin/events.js';
import { shown } from '../model/ip.js';
import { daemonError, print, type Call } from './commands.js';
import { exitStatus, ToolError, usageError, type ExitStatus } from './error.js';
import type { EventsReading } from './ports.js';
import { openPaint, withoutControls, type Output, type Paint } from './table.js';

export interface EventsRequest {
  /** The newest so many. */
  readonly count: number;
  readonly sinceMs: number | undefined;
  readonly level: KeptEvent['level'];
  readonly follow: boolean;
}

export const eventLevels = ['info', 'warn', 'error'] as const satisfies readonly KeptEvent['level'][];

const followMs = 500;
const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const sinceExpected = 'expected a duration such as 90s, 15m, 1h or 2d, or a time such as 2026-01-31T08:00';

/** @returns milliseconds since 1970 */
export function readSince(text: string, nowMs: number): number {
  const [, number = '', unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = unitSeconds[unit];
  if (seconds !== undefined) return nowMs - Number(number) * seconds * 1000;
  const time = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d|$)/.test(text) ? Date.parse(text) : NaN;
  if (Number.isNaN(time)) throw usageError(`--since: '${shown(text)}' is no time, ${sinceExpected}`);
  return time;
}

export async function showEvents(call: Call, request: EventsRequest): Promise<ExitStatus> {
  const first = await readOnce(call, 0);
  if (first.unasked !== undefined) {
    const { stateDir } = call.settings;
    call.io.stderr(withoutControls(`note: tartand cannot be asked: ${first.unasked}; these are of ${stateDir}`) + '\n');
  }
  const events = first.list.events.filter(event => isWanted(event, request)).slice(-request.count);
  if (!request.follow) {
    print(call, { ...first.list, events }, (output, paint) => formatEvents(events, output, paint));
    return exitStatus.ok;
  }
  write(call, events);
  return follow(call, request, first.list.lastId);
}

/** Never returns: an interrupt ends the program. A daemon that is away meanwhile is asked again. */
async function follow(call: Call, request: EventsRequest, sinceId: number): Promise<never> {
  for (let lastId = sinceId; ;) {
    await delay(followMs);
    const reading = await call.io.ports.readEvents(call.settings.runDir, call.settings.stateDir, lastId);
    if (reading.kind === 'unreachable') continue;
    const { list } = reading;
    write(
      call,
      list.events.filter(event => isWanted(event, request)),
    );
    // The numbers begin anew with another state directory; a file may be behind the daemon that wrote it.
    if (reading.unasked === undefined || list.lastId > lastId) lastId = list.lastId;
  }
}

async function readOnce(call: Call, afterId: number): Promise<EventsReading & { readonly kind: 'events' }> {
  const { runDir, stateDir } = call.settings;
  const reading = await call.io.ports.readEvents(runDir, stateDir, afterId);
  if (reading.kind === 'events') return reading;
  const { message, next } = daemonError(reading.reason);
  throw new ToolError(exitStatus.daemonUnreachable, message, next);
}

function isWanted({ level, time }: KeptEvent, request: EventsRequest): boolean {
  const isSevere = eventLevels.indexOf(level) >= eventLevels.indexOf(request.level);
  return isSevere && (request.sinceMs === undefined || Date.parse(time) >= request.sinceMs);
}

/** Writes line by line: a document of JSON would have no end. */
function write({ io, output }: Call, events: readonly KeptEvent[]): void {
  if (output !== 'json') io.stdout(formatEvents(events, output, openPaint(io)));
  else for (const event of events) io.stdout(`${JSON.stringify(event)}\n`);
}

function formatEvents(events: readonly KeptEvent[], output: Exclude<Output, 'json'>, paint: Paint): string {
  return events.map(event => `${formatEvent(event, output, paint)}\n`).join('');
}

function formatEvent(event: KeptEvent, output: Exclude<Output, 'json'>, paint: Paint): string {
  const level = event.level.padEnd(5);
  const head = `${paint(localTime(event.time), 'faint')}  ${event.level === 'info' ? level : paint(level, 'bad')}`;
  const detail =
    output === 'wide' ? paint(`  ${event.event} ${withoutControls(JSON.stringify(event.fields))}`, 'faint') : '';
  return `${head}  ${withoutControls(event.message)}${detail}`;
}

/** Returns `2026-01-31 08:00:00` in the time zone of this process. */
function localTime(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return withoutControls(time);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}
